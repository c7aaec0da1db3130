"""Workers of several machines on one database: a real PostgreSQL, real processes, killed ones."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from bdhf.records import InputError, Owner
from bdhf.tuning.sampling.trial_slots import SURPLUS
from bdhf.tuning.storage.patience import PATIENCE_SECONDS
from bdhf.tuning.storage.storage import GRACE, StudyLocation
from bdhf.tuning.study.study import Study, open_study
from bdhf.tuning.workers.recovery import _is_dead
from tests.messages import naming
from tests.tuning.server import Server, running
from tests.tuning.small import LONG, begun, finished, killed, placed, trials_of, written

pytestmark = pytest.mark.slow

HEARTBEAT = 1
TRIALS = 3

#: Starts a worker, with its folder and the URL.
Start = Callable[[Path, str], "subprocess.Popen[bytes]"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL."""
    with running() as postgres:
        yield postgres


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `bdhf tune --worker`, and ends all of them."""
    processes = []

    def begin(out: Path, url: str) -> subprocess.Popen[bytes]:
        words = ["bdhf.cli", "tune", tmp_path / "study.yaml", "--storage", url, "--out", out]
        more = ["--worker", "--heartbeat", HEARTBEAT]
        processes.append(begun([*words, *more], tmp_path / "log"))
        return processes[-1]

    yield begin
    for process in processes:
        killed(process)


@contextmanager
def opened(location: StudyLocation) -> Iterator[BaseStorage]:
    """A storage, closed again."""
    storage = location.open()
    yield storage
    storage.engine.dispose()


def its_trial(
    process: subprocess.Popen[bytes], study: Study, storage: BaseStorage
) -> tuple[str, FrozenTrial]:
    """Wait until a worker is amid a trial; return the arm and the trial."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for label, trials in trials_of(study, storage).items():
            for trial in trials:
                owner = Owner.parse(str(trial.user_attrs.get("owner", "")))
                is_own = owner is not None and owner.pid == process.pid
                if is_own and trial.state is TrialState.RUNNING and "settings" in trial.user_attrs:
                    return label, trial
        time.sleep(0.1)
    raise AssertionError("it never came to a trial")


def again(of: FrozenTrial, trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that repeat one."""
    return [trial for trial in trials if trial.user_attrs.get("again") == of.number]


def test_the_trial_of_a_killed_worker_is_made_again_by_another(
    tmp_path: Path, server: Server, start: Start
) -> None:
    """Three workers; one is killed, one is silent for too long: N trials an arm, none twice.

    The heartbeat shows this, since the processes of other machines are not visible.
    """
    study = open_study(written(tmp_path, *LONG, ("trials: 5", f"trials: {TRIALS}")))
    url = server.database("killed")
    location = StudyLocation(tmp_path / "look", url, HEARTBEAT)
    workers = [start(tmp_path / name, url) for name in ("a", "b", "c")]
    with opened(location) as storage:
        label, trial = kill_one(workers[0], study, storage)
        assert not _is_dead(trial, location, {})
        assert _is_dead(trial, StudyLocation(tmp_path), {})  # in a journal its process shows it
        slept_label, slept = suspend_one(workers[1], study, storage)

        log = tmp_path / "log"
        assert [worker.wait(timeout=240) for worker in workers[1:]] == [0, 0], log.read_text()
        assert "Traceback" not in log.read_text()
        by_arm = trials_of(study, storage)
    for trials in by_arm.values():
        assert len(finished(trials)) == TRIALS
        assert all(t.state.is_finished() for t in trials)
    assert by_arm[label][trial.number].state is TrialState.FAIL
    (second,) = again(trial, by_arm[label])
    assert (second.params, second.user_attrs["deaths"]) == (trial.params, 1)
    assert second.user_attrs["owner"] != trial.user_attrs["owner"]
    if by_arm[slept_label][slept.number].state is TrialState.FAIL:  # another has looked meanwhile
        assert [t.params for t in again(slept, by_arm[slept_label])] == [slept.params]


def kill_one(
    worker: subprocess.Popen[bytes], study: Study, storage: BaseStorage
) -> tuple[str, FrozenTrial]:
    """Kill a worker amid a trial; return the arm and the trial."""
    there = its_trial(worker, study, storage)
    killed(worker)
    return there


def suspend_one(
    worker: subprocess.Popen[bytes], study: Study, storage: BaseStorage
) -> tuple[str, FrozenTrial]:
    """Stop a worker amid a trial until it counts as ended, then let it continue."""
    there = its_trial(worker, study, storage)
    os.killpg(worker.pid, signal.SIGSTOP)
    time.sleep((GRACE + 3) * HEARTBEAT)
    os.killpg(worker.pid, signal.SIGCONT)
    return there


def test_workers_that_start_at_one_instant_share_the_work(tmp_path: Path, server: Server) -> None:
    """Four on an empty database: each study made once, one default trial, no draw twice."""
    changes = ("trials: 5", "trials: 10"), ("{type: tpe, startup: 2}", "random")
    file, url, go = written(tmp_path, *changes), server.database("instant"), tmp_path / "go"
    outs = [tmp_path / f"out{i}" for i in range(4)]
    log = tmp_path / "log"
    workers = [begun(["tests.tuning.small", "join", file, out, url, go], log) for out in outs]
    with_deadline(lambda: all(out.exists() for out in outs))
    go.touch()

    assert [worker.wait(timeout=240) for worker in workers] == [0] * 4, log.read_text()
    study = open_study(file)
    with opened(StudyLocation(tmp_path / "look", url)) as storage:
        names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
        by_arm, ended = trials_of(study, storage), placed(study, storage)
    assert sorted(names) == ["tiny/adam", "tiny/hf"]
    for label, trials in by_arm.items():
        assert len(finished(trials)) == 10
        assert all(trial.state.is_finished() for trial in trials)
        assert [bool(t.user_attrs.get("default")) for t in finished(trials)].count(True) == 1
        drawn = [str(params) for params, _ in ended[label]]
        assert len(set(drawn)) == 10


def with_deadline(done: Callable[[], bool]) -> None:
    """Wait for something."""
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_database_that_is_lost_is_one_line(tmp_path: Path, server: Server, start: Start) -> None:
    """A worker whose database disappears ends with exit code 2 and the message of the database."""
    study = open_study(written(tmp_path, *LONG))
    url = server.database("lost")
    worker = start(tmp_path / "out", url)
    with opened(StudyLocation(tmp_path / "look", url, HEARTBEAT)) as storage:
        its_trial(worker, study, storage)

    server.tell("DROP DATABASE lost WITH (FORCE)")

    assert worker.wait(timeout=120) == 2
    said = (tmp_path / "log").read_text().splitlines()
    assert said[-1].startswith("--storage: "), said


def outlasted(home: Path, workers: int, trials: int, seconds: float) -> None:
    """Restart a server amid the trials of some workers: N trials an arm, none lost or doubled.

    Each worker prints two lines, when it waits and when it continues, and none of Optuna.
    """
    study = open_study(written(home, *SHORT_OUTAGE, ("trials: 5", f"trials: {trials}")))
    log, go = home / "log", home / "go"
    with running() as server:
        url = server.database("gone")
        outs = [home / f"out{i}" for i in range(workers)]
        file = home / "study.yaml"
        processes = [begun(["tests.tuning.small", "join", file, out, url, go], log) for out in outs]
        try:
            with_deadline(lambda: all(out.exists() for out in outs))
            go.touch()
            with_deadline(lambda: log.read_text().count("/") >= workers)
            server.stop()
            time.sleep(seconds)
            server.start()
            codes = [process.wait(timeout=400) for process in processes]
        finally:
            for process in processes:
                killed(process)
        said = log.read_text()
        with opened(StudyLocation(home / "look", url)) as storage:
            by_arm, ended = trials_of(study, storage), placed(study, storage)
    assert codes == [0] * workers, said
    assert "Traceback" not in said
    outages = [line for line in said.splitlines() if line.startswith("--storage: ")]
    waits = [line for line in outages if f"{PATIENCE_SECONDS:g} s" in line]
    assert len(outages) == 2 * len(waits)
    assert 1 <= len(waits) <= 2 * workers  # a worker amid a run notices nothing
    for label, of_arm in by_arm.items():
        assert len(finished(of_arm)) == trials
        assert all(SURPLUS in trial.user_attrs for trial in of_arm if trial not in finished(of_arm))
        assert len({str(params) for params, _ in ended[label]}) == trials


#: Random draws, for arms that take a while with synthetic runs.
SHORT_OUTAGE = (("{type: tpe, startup: 2}", "random"),)


def test_workers_outlast_a_server_that_is_restarted(tmp_path: Path) -> None:
    """Three workers, a second and a half."""
    outlasted(tmp_path, workers=3, trials=10, seconds=1.5)


@pytest.mark.long
def test_many_workers_outlast_a_server_that_is_restarted(tmp_path: Path) -> None:
    """Sixteen workers, three seconds."""
    outlasted(tmp_path, workers=16, trials=80, seconds=3)


@pytest.mark.parametrize(
    ("url", "fact"),
    [
        ("postgresql+psycopg://bdhf@/none?host={folder}", '"none"'),
        ("postgresql+psycopg://bdhf@/none?host=/nowhere", "/nowhere"),
    ],
    ids=["no database", "no server"],
)
def test_a_database_that_cannot_be_reached_is_one_line(
    tmp_path: Path, server: Server, url: str, fact: str
) -> None:
    """Without a server, or without this database, one line names the reason."""
    with pytest.raises(InputError, match=f"^--storage: {naming(fact)}") as error:
        StudyLocation(tmp_path, url.format(folder=server.folder)).open()

    assert len(error.value.lines) == 1

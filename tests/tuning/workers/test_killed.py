"""A study that is killed with all its workers, at any moment, equals the undisturbed study."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from bdhf.records import load_study, run_status
from bdhf.tuning.outcome.collect import collect_study
from bdhf.tuning.storage.storage import StudyLocation
from bdhf.tuning.study.study import Study, open_study
from tests.tuning.small import LONG, begun, finished, killed, placed, trials_of, written
from tests.tuning.synthetic import worked

pytestmark = pytest.mark.slow

THIRD = ("arms:\n", "arms:\n  sgd: {type: torch.SGD, lr: 0.1}\n")
RANDOM = ("{type: tpe, startup: 2}", "random")
ITS_SPACE = ("spaces:\n", "spaces:\n  sgd: {lr: {log: [1.0e-2, 1.0]}}\n")


class Pool:
    """`small pool` on one folder, started several times."""

    def __init__(self, home: Path) -> None:
        self._file = home / "study.yaml"
        self.location = StudyLocation(home / "out")
        self.log = home / "log"
        self.running: subprocess.Popen[bytes] | None = None

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        """Start or resume it, with more variables in the environment."""
        command = ["tests.tuning.small", "pool", self._file, self.location.folder, 2]
        self.running = begun(command, self.log, **more)
        return self.running

    def kill_after(self, moment: str) -> bool:
        """Start it, and kill all processes when a worker reaches a moment; whether one did."""
        marker = self.log.with_name("marker")
        marker.unlink(missing_ok=True)
        process, deadline = self.start(STOP_AFTER=f"{moment}:{marker}"), time.monotonic() + 120
        while not marker.exists() and process.poll() is None:
            assert time.monotonic() < deadline, f"{moment}: {self.log.read_text()}"
            time.sleep(0.002)
        return killed(process) == -signal.SIGKILL and marker.exists()

    def lines(self) -> int:
        """The number of lines in the journal."""
        journal = self.location.journal
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    def trials(self) -> dict[str, list[FrozenTrial]]:
        """The present trials; nothing is written, and no lock is taken."""
        if not self.location.journal.exists():
            return {}
        storage = JournalStorage(JournalFileBackend(str(self.location.journal)))
        return trials_of(open_study(self._file), storage)

    def wait(self, process: subprocess.Popen[bytes], what: str, lines: int) -> bool:
        """Wait until the journal has so many lines or the process has ended; whether it runs."""
        deadline = time.monotonic() + 120
        while self.lines() < lines and process.poll() is None:
            assert time.monotonic() < deadline, f"{what}: {self.log.read_text()}"
            time.sleep(0.002)
        return process.poll() is None


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    """A pool, which leaves no process."""
    made = Pool(tmp_path)
    yield made
    if made.running is not None:
        killed(made.running)


def table(study: Study, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The collected trials and parameters, without times and Optuna's numbers."""
    collect_study(study, StudyLocation(folder))
    records = load_study(folder)
    own = ["number", "seconds", "wall_seconds", "started", "finished", "host"]
    return records.trials.drop(columns=own), records.parameters


#: Moments at which it is killed, one after the other, each with the number of its occurrence. The
#: trials at positions 2 and 3 are modelled; one without a name was once skipped.
KILLS = ("claimed:1", "asked:2", "begun:2", "told:1")


@pytest.mark.parametrize(
    ("kills", "changes"),
    [
        pytest.param(KILLS, (THIRD, ITS_SPACE), id="tpe"),
        pytest.param(("asked:1", "made:2"), (RANDOM,), id="random", marks=pytest.mark.long),
    ],
)
def test_killed_at_any_moment_it_ends_as_if_it_never_had_been(
    tmp_path: Path, pool: Pool, kills: tuple[str, ...], changes: tuple[tuple[str, str], ...]
) -> None:
    """N trials an arm, with the same settings and values at each position; no run is torn."""
    study = open_study(written(tmp_path, *changes, ("trials: 5", "trials: 4")))
    for moment in kills:
        assert pool.kill_after(moment), f"{moment}: {pool.log.read_text()}"
    process = pool.start()

    assert process.wait(timeout=240) == 0, pool.log.read_text()
    assert "Traceback" not in pool.log.read_text()
    worked(study, tmp_path / "alone")
    assert placed(study, pool.location.open()) == placed(
        study, StudyLocation(tmp_path / "alone").open()
    )
    for trials in pool.trials().values():
        assert len(finished(trials)) == 4
        assert all(trial.state.is_finished() for trial in trials)
    for disturbed, alone in zip(
        table(study, pool.location.folder), table(study, tmp_path / "alone"), strict=True
    ):
        pd.testing.assert_frame_equal(disturbed, alone)
    check_runs(pool.location.folder)


def check_runs(folder: Path) -> None:
    """Every run is complete, and no temporary file remains."""
    for name in os.listdir(folder / "runs"):
        status = run_status(folder, name)
        assert status is not None, name
        assert status["status"] == "done", status
    assert not list(folder.rglob(".tmp-*"))


def test_asked_to_end_it_continues_later_and_nothing_has_died(tmp_path: Path, pool: Pool) -> None:
    """A signal to all processes: exit code 130, no traceback, no running trial, no death counted.

    From Ctrl-C and from a scheduler, at the start and during trials.
    """
    study = open_study(written(tmp_path, ("trials: 5", "trials: 3")))
    for more, number in ((1, signal.SIGTERM), (30, signal.SIGINT), (20, signal.SIGTERM)):
        process = pool.start()
        pool.wait(process, "a trial", pool.lines() + more)
        assert killed(process, number) == 130, pool.log.read_text()
        assert "Traceback" not in pool.log.read_text()
    left = [trial.user_attrs for trials in pool.trials().values() for trial in trials
            if trial.state is TrialState.RUNNING]  # fmt: skip
    assert not [trial for trial in left if "settings" in trial]  # else it was being asked for

    assert pool.start().wait(timeout=240) == 0, pool.log.read_text()
    made = [trial.user_attrs for trials in pool.trials().values() for trial in trials]
    assert not [deaths for trial in made if (deaths := trial.get("deaths", 0))]
    worked(study, tmp_path / "alone")
    assert placed(study, pool.location.open()) == placed(
        study, StudyLocation(tmp_path / "alone").open()
    )


def test_a_worker_that_is_asked_to_end_is_replaced(tmp_path: Path, pool: Pool) -> None:
    """Its arm is not finished: a new worker makes the other trials; a line has the exit code."""
    written(tmp_path, ("trials: 5", "trials: 2"), *LONG)
    process = pool.start()
    assert pool.wait(process, "a trial", pool.lines() + 15)
    os.kill(owner(pool), signal.SIGTERM)

    assert process.wait(timeout=240) == 0, pool.log.read_text()
    assert [len(finished(trials)) for trials in pool.trials().values()] == [2, 2]
    assert re.search(rf"^\w+: .* {128 + signal.SIGTERM}\b", pool.log.read_text(), re.MULTILINE)


def owner(pool: Pool) -> int:
    """The process of a running trial."""
    while True:
        for trial in (trial for trials in pool.trials().values() for trial in trials):
            if trial.state is TrialState.RUNNING and "settings" in trial.user_attrs:
                return int(trial.user_attrs["owner"].split("~")[1])

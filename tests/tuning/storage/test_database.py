"""A database with an outage: nothing is lost or done twice, and two lines report it."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from bdhf.records import InputError, Owner
from bdhf.tuning.storage.database import Database
from bdhf.tuning.storage.patience import LostError, Patience, is_outage
from bdhf.tuning.storage.storage import StudyLocation, quiet
from bdhf.tuning.workers.trial_loop import TrialLoop
from tests.messages import naming
from tests.tuning.small import placed, trials_of
from tests.tuning.synthetic import quick, study, worked

__all__ = ["quick"]


def gone() -> OperationalError:
    """The error of SQLAlchemy after a broken connection."""
    error = OperationalError("COMMIT", {}, Exception("server closed the connection"))
    error.connection_invalidated = True
    return error


@contextmanager
def breaking(patch: pytest.MonkeyPatch, how: Callable[[int], str]) -> Iterator[list[int]]:
    """Let commits of this thread break; `how` returns "before", "after" or "" for each one."""
    commit, count, thread = Session.commit, list[int](), threading.get_ident()

    def broken(session: Session) -> None:
        if threading.get_ident() != thread:
            commit(session)
            return
        count.append(len(count))
        moment = how(count[-1])
        if moment == "before":
            raise gone()
        commit(session)
        if moment == "after":
            raise gone()

    with patch.context() as broke:
        broke.setattr(Session, "commit", broken)
        broke.setattr(time, "sleep", lambda seconds: None)
        yield count


@pytest.fixture
def said() -> list[str]:
    """The lines that were printed."""
    return []


@pytest.fixture
def of(tmp_path: Path, said: list[str]) -> Iterator[optuna.Study]:
    """A study in a database that is a file."""
    patience = Patience(60, 1, said.append)
    with quiet():
        storage = Database(
            f"sqlite:///{tmp_path}/db", patience, heartbeat_interval=60, grace_period=180
        )
        yield optuna.create_study(storage=storage, study_name="study")
    storage.engine.dispose()


def asked(of: optuna.Study) -> optuna.Trial:
    """Ask for a trial, which Optuna warns of outside of `optimize`."""
    of._thread_local.in_optimize_loop = True
    return of.ask()


def ask(of: optuna.Study) -> None:
    asked(of)


def ask_for_it(of: optuna.Study) -> None:
    of.enqueue_trial({"x": 0.5})
    asked(of).suggest_float("x", 0, 1)


def add(of: optuna.Study) -> None:
    of.add_trial(
        optuna.create_trial(
            value=1.0, params={"x": 0.5}, distributions={"x": FloatDistribution(0, 1)}
        )
    )


def tell(of: optuna.Study) -> None:
    trial = asked(of)
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr("name", [1, 2])
    trial.report(3.0, 1)
    of.tell(trial, 2.0)


def fail(of: optuna.Study) -> None:
    of.tell(asked(of), state=TrialState.FAIL)


def prune(of: optuna.Study) -> None:
    trial = asked(of)
    trial.report(3.0, 1)
    of.tell(trial, state=TrialState.PRUNED)


def note(of: optuna.Study) -> None:
    of.set_user_attr("name", 1)
    of.set_metric_names(["cost"])


def begin_another(of: optuna.Study) -> None:
    try:
        optuna.create_study(storage=of._storage, study_name="other")
    except optuna.exceptions.DuplicatedStudyError:  # which `study_of` expects
        optuna.load_study(storage=of._storage, study_name="other")


DEEDS = (ask, ask_for_it, add, tell, fail, prune, note, begin_another)


def state_of(of: optuna.Study) -> Any:
    """The content of the database, except times and marks."""
    trials = [
        (t.number, t.state, t.values, sorted(t.params), t.user_attrs, t.intermediate_values)
        for t in of.get_trials()
    ]
    names = sorted(summary.study_name for summary in optuna.get_all_study_summaries(of._storage))
    return trials, of.user_attrs, of.metric_names, names


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_what_breaks_is_done_once(
    tmp_path: Path,
    of: optuna.Study,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    deed: Callable[[optuna.Study], None],
    moment: str,
) -> None:
    """Every commit breaks once, before or after it was done: all is as if none had.

    One line reports that it waits, and one that it continues.
    """
    whole = optuna.create_study(
        storage=RDBStorage(f"sqlite:///{tmp_path}/whole"), study_name="study"
    )
    deed(whole)

    with breaking(monkeypatch, lambda number: moment if number % 2 == 0 else "") as commits:
        deed(of)

    assert len(commits) > 1
    assert state_of(of) == state_of(whole)
    assert bool(said) is (deed is not add)  # which Optuna itself tries again
    begins, ends = said[::2], said[1::2]
    assert len(begins) == len(ends)
    assert all(re.search(naming("server closed the connection", "60 s"), line) for line in begins)
    assert all(line.startswith("--storage: ") for line in ends)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_study_whose_database_breaks_all_the_time_is_the_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of all commits break, half of them after they took effect: same trials."""
    few = study(tmp_path, ("trials: 8", "trials: 3"))
    worked(few, tmp_path / "alone")
    location, draw = StudyLocation(tmp_path / "out", f"sqlite:///{tmp_path}/db"), random.Random(3)
    loop = TrialLoop(few, location, lambda *of_trial: None, pool=str(Owner.here()))

    def how(number: int) -> str:
        return draw.choice(["before", "after", "", "", "", ""])

    with breaking(monkeypatch, how) as commits:
        loop.run(["adam"])

    assert len(commits) > 100
    storage = location.open()
    trials = trials_of(few, storage)["adam"]
    assert [(t.number, t.state) for t in trials] == [(i, TrialState.COMPLETE) for i in range(3)]
    alone = placed(few, StudyLocation(tmp_path / "alone").open())["adam"]
    assert placed(few, storage)["adam"] == alone


def test_what_was_claimed_by_another_is_not_claimed(of: optuna.Study) -> None:
    """Of two calls one claims a waiting trial, and each call returns whether it did."""
    of.enqueue_trial({"x": 0.5})
    (waiting,) = of.get_trials()

    claims = [
        of._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING) for _ in range(2)
    ]

    assert claims == [True, False]


def test_what_is_wrong_for_good_is_not_tried_again(of: optuna.Study, said: list[str]) -> None:
    """A value that cannot be stored is reported at once."""
    trial = asked(of)

    with pytest.raises(TypeError):
        trial.set_user_attr("name", object())
    of.tell(trial, 1.0)
    with pytest.raises(UpdateFinishedTrialError):
        of._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
    assert said == []


@pytest.mark.parametrize(
    ("statement", "words", "is_one"),
    [
        (None, "connection refused", True),
        (None, "FATAL: the database system is starting up", True),
        (None, "FATAL: sorry, too many clients already", True),
        (None, 'FATAL: database "x" does not exist', False),
        (None, 'FATAL: password authentication failed for user "x"', False),
        ("SELECT 1", "no such table", False),
    ],
)
def test_what_a_server_says_is_no_outage(statement: str | None, words: str, is_one: bool) -> None:
    """We wait for a server without a connection, and not for one that refuses."""
    error = StorageInternalError("while committing")
    error.__cause__ = OperationalError(statement, {}, Exception(words))

    assert is_outage(error) is is_one


def test_pauses_double_up_to_the_interval_of_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.5, 1, 2 s and so on, up to the longest pause and the remaining time."""
    now, pauses = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    def unreachable() -> None:
        raise gone()

    monkeypatch.setattr("bdhf.tuning.storage.patience.time.monotonic", lambda: now[0])
    monkeypatch.setattr("bdhf.tuning.storage.patience.time.sleep", sleep)
    patience = Patience(20, 4, lambda line: None)

    with pytest.raises(LostError, match="server closed the connection"):
        patience.keep_at(unreachable)

    assert pauses == [0.5, 1, 2, 4, 4, 4, 4, 0.5]


def test_whoever_is_interrupted_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C in a pause, each further write is tried once."""
    tries = []

    def unreachable() -> None:
        tries.append(1)
        raise gone()

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bdhf.tuning.storage.patience.time.sleep", interrupted)
    patience = Patience(300, 20, lambda line: None)

    with pytest.raises(KeyboardInterrupt):
        patience.keep_at(unreachable)
    with pytest.raises(LostError):
        patience.keep_at(unreachable)
    assert len(tries) == 2


def test_a_sign_of_life_that_cannot_be_given_is_let_out(
    of: optuna.Study, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of the heartbeat continues; it does not hide other failures."""
    trial, errors = asked(of), list[BaseException]()

    def give() -> None:
        try:
            of._storage.record_heartbeat(trial._trial_id)
        except BaseException as error:
            errors.append(error)

    failures = [ValueError("another kind"), gone()]

    def fails(session: Session) -> None:
        raise failures.pop()

    for _ in range(2):
        with monkeypatch.context() as broke:
            broke.setattr(Session, "commit", fails)
            thread = threading.Thread(target=give)
            thread.start()
            thread.join()

    assert [str(error) for error in errors] == ["another kind"]
    assert len(said) == 1
    of._storage.record_heartbeat(trial._trial_id)
    assert re.search(naming("--storage:", "0 s"), said[1])
    assert len(said) == 2


def test_after_an_outage_nobody_is_taken_for_dead_at_once(
    of: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage, workers have the full time for their next heartbeat."""
    storage, trial = of._storage._backend, asked(of)
    of._storage.record_heartbeat(trial._trial_id)
    storage.grace_period = 0.2
    time.sleep(1.3)  # the clock of SQLite has seconds
    with breaking(monkeypatch, lambda number: "before" if number == 0 else ""):
        of.set_user_attr("name", 1)

    fail_stale_trials(of)
    assert of.trials[0].state is TrialState.RUNNING
    time.sleep(0.3)
    fail_stale_trials(of)
    assert of.trials[0].state is TrialState.FAIL


@pytest.mark.usefixtures("quick")
def test_a_database_that_stays_away_is_one_line_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the patience of a location a worker ends with one line, without Optuna's errors."""
    location = StudyLocation(tmp_path / "out", f"sqlite:///{tmp_path}/db", patience=0.0)
    loop = TrialLoop(study(tmp_path), location, lambda *of_trial: None)

    with (
        breaking(monkeypatch, lambda number: "before" if number > 60 else ""),
        pytest.raises(InputError) as told,
    ):
        loop.run(["adam"])

    (line,) = told.value.lines
    assert line.startswith("--storage: ")
    assert "server closed the connection" in line
    assert len(capsys.readouterr().err.splitlines()) == 1


TABLES = {
    "older": ("v3.0.0.d", "`optuna storage upgrade --storage URL`"),
    "newer": ("v99.0.0.a", "`pip install -U optuna`"),
}


@pytest.mark.parametrize(("version", "way"), TABLES.values(), ids=TABLES)
def test_tables_of_another_version_are_reported_with_the_way_out(
    tmp_path: Path, version: str, way: str
) -> None:
    """The message names both versions and the command to use; nothing is changed."""
    url = f"sqlite:///{tmp_path}/db"
    with_version(url, version)
    before = (tmp_path / "db").read_bytes()

    with pytest.raises(InputError) as told:
        StudyLocation(tmp_path / "out", url).open()

    (line,) = told.value.lines
    needed = RDBStorage("sqlite://").get_head_version()
    assert line.startswith("--storage: ")
    assert re.search(naming(version, optuna.__version__, needed, way), line)
    assert (tmp_path / "db").read_bytes() == before


@pytest.mark.slow
def test_the_way_out_of_older_tables_leads_out(tmp_path: Path) -> None:
    """The command of the message upgrades the tables, and the study opens."""
    url = f"sqlite:///{tmp_path}/db"
    with_version(url, TABLES["older"][0])

    code = "import sys; from optuna.cli import main; sys.exit(main())"  # the command `optuna`
    command = [sys.executable, "-c", code, "storage", "upgrade", "--storage", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert StudyLocation(tmp_path / "out", url).open().get_all_studies() == []


def with_version(url: str, version: str) -> None:
    """Create the present tables of Optuna, labelled with another version."""
    storage = RDBStorage(url)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{version}'")
    storage.engine.dispose()

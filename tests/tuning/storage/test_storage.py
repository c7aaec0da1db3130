"""The storage of trials: a torn journal, another definition, an invalid database."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bdhf.records import PLAN_INDEX, InputError
from bdhf.tuning.outcome.collect import collect_study, stored_trials
from bdhf.tuning.storage.lock import JournalLock
from bdhf.tuning.storage.storage import StudyLocation, refuse_other_contents
from bdhf.tuning.study.study import Study
from tests.messages import naming
from tests.tuning.small import placed
from tests.tuning.synthetic import quick, study, worked

__all__ = ["quick"]

RANDOM = ("{type: tpe, startup: 3}", "random")


def few(home: Path, trials: int = 4) -> Study:
    """The study with few trials."""
    return study(home, RANDOM, ("trials: 8", f"trials: {trials}"))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("torn", [b'{"op_code":8,"wor', b"x" * 200_000], ids=["a bit", "much"])
def test_a_torn_last_line_is_cut_and_the_rest_is_read(tmp_path: Path, torn: bytes) -> None:
    """An incomplete line of a killed process is removed at once; all earlier trials remain."""
    of, location = few(tmp_path), StudyLocation(tmp_path / "out")
    worked(of, location.folder)
    before, whole = placed(of, location.open()), location.journal.read_bytes()
    location.journal.write_bytes(whole + torn)

    storage = location.open()

    assert location.journal.read_bytes() == whole
    assert placed(of, storage) == before


@pytest.mark.usefixtures("quick")
def test_a_line_that_is_torn_while_others_write_is_cut_before_the_next_one(tmp_path: Path) -> None:
    """A storage that is already open writes as if that line had not been there."""
    of, location = few(tmp_path), StudyLocation(tmp_path / "out")
    worked(of, location.folder)
    storage = location.open()
    with location.journal.open("ab") as journal:
        journal.write(b'{"op_code":8,"wor')

    storage.set_study_user_attr(0, "said", "after")

    assert location.open().get_study_user_attrs(0)["said"] == "after"
    assert b"wor\n" not in location.journal.read_bytes()


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    """A process that is killed with the lock leaves a file that the next process ignores."""
    path = tmp_path / "journal.log"
    code = (
        "import sys, time; from bdhf.tuning.storage.lock import JournalLock;"
        "JournalLock(sys.argv[1]).acquire(); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        os.kill(process.pid, signal.SIGKILL)
    assert path.with_name("journal.log.lock").exists()

    begun = time.monotonic()
    lock = JournalLock(str(path))
    assert lock.acquire()
    lock.release()

    assert time.monotonic() - begun < 5
    assert os.listdir(tmp_path) == ["journal.log"]


def _taken_and_let_go(lock: JournalLock) -> None:
    lock.acquire()
    lock.release()


@pytest.mark.parametrize("call", ["open", "unlink"])
def test_an_interruption_of_the_lock_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Ctrl-C before Optuna's file exists, or after it was removed, is KeyboardInterrupt."""
    path = tmp_path / "journal.log"
    lock, original = JournalLock(str(path)), getattr(os, call)

    def interrupted(name: str, *rest: int) -> int:
        if not name.startswith(f"{path}.lock"):
            return int(original(name, *rest))
        if call == "unlink":
            original(name)
            monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        _taken_and_let_go(lock)
    monkeypatch.undo()

    assert JournalLock(str(path)).acquire()
    assert sorted(os.listdir(tmp_path)) == ["journal.log", "journal.log.lock"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "change",
    [
        ("{log: [1.0e-4, 1.0]}", "{log: [1.0e-4, 0.9]}"),
        ("seeds: {count: 2, base: 100}", "seeds: {count: 2, base: 101}"),
        ("sampler: random", "sampler: {type: random, seed: 1}"),
        ("below: 0.1}", "below: 0.2}"),
    ],
    ids=["space", "seeds", "sampler", "target"],
)
def test_a_definition_that_has_changed_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    """Trials of two definitions are not combined; one line names the study and the way out."""
    worked(few(tmp_path), tmp_path / "out")
    of = study(tmp_path, RANDOM, ("trials: 8", "trials: 4"), change)

    with pytest.raises(InputError, match=naming("study.yaml", "small/adam", "`name`")) as error:
        stored_trials(of, StudyLocation(tmp_path / "out").open())
    assert len(error.value.lines) == 1


@pytest.mark.usefixtures("quick")
def test_more_trials_continue_where_fewer_ended(tmp_path: Path) -> None:
    """Four trials that are raised to six are the six of a study that had six at once."""
    location = StudyLocation(tmp_path / "out")
    worked(few(tmp_path), location.folder)
    four = placed(few(tmp_path), location.open())

    more = few(tmp_path, trials=6)
    worked(more, location.folder)
    worked(more, tmp_path / "alone")

    six = placed(more, location.open())
    assert six == placed(more, StudyLocation(tmp_path / "alone").open())
    assert {label: trials[:4] for label, trials in six.items()} == four
    assert all(arm.finished == 6 for arm in collect_study(more, location).arms)


@pytest.mark.parametrize(
    ("url", "facts"),
    [
        ("postgres", ("postgresql+psycopg://user@host/database",)),
        ("journal://there", ("journal", "bdhf[postgresql]")),
        ("mysql+nothing://there/db", ("mysql.nothing", "bdhf[postgresql]")),
        ("oracle://there/db", ("bdhf[postgresql]",)),
        ("postgresql+psycopg://nobody@127.0.0.1:1/none", ("127.0.0.1",)),
    ],
    ids=["no URL", "unknown", "unknown driver", "missing driver", "no server"],
)
def test_a_database_that_is_none_is_one_line(
    tmp_path: Path, url: str, facts: tuple[str, ...]
) -> None:
    """A text that is no URL, a missing driver, and a missing server."""
    with pytest.raises(InputError, match=f"^--storage: {naming(*facts)}") as error:
        StudyLocation(tmp_path, url).open()

    assert len(error.value.lines) == 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A file in the place of the results folder."""
    (tmp_path / "out").write_text("")

    with pytest.raises(InputError, match=re.escape(str(tmp_path / "out"))):
        StudyLocation(tmp_path / "out").open()


@pytest.mark.usefixtures("quick")
def test_a_study_does_not_go_into_a_folder_of_other_results(tmp_path: Path) -> None:
    """It would overwrite other pages and runs; its own folder is accepted."""
    of, folder = few(tmp_path, 1), tmp_path / "out"
    worked(of, folder)
    collect_study(of, StudyLocation(folder))
    ablation = tmp_path / "ablation"
    ablation.mkdir()
    (ablation / PLAN_INDEX).write_text("{}")
    other = study(tmp_path, ("name: small\nablation", "name: other\nablation"))

    refuse_other_contents(of, folder)
    refuse_other_contents(of, tmp_path / "new")
    with pytest.raises(InputError, match=naming("--out:", folder, "study small")):
        refuse_other_contents(other, folder)
    with pytest.raises(InputError, match=naming("--out:", ablation)):
        refuse_other_contents(of, ablation)

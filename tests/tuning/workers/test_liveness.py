"""Workers of a journal whose processes are not visible: after a restart, or in containers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bdhf.records import Owner
from bdhf.tuning.outcome.collect import stored_trials
from bdhf.tuning.storage.storage import StudyLocation, quiet, study_of
from bdhf.tuning.workers.liveness import has_left, present
from tests.tuning.synthetic import quick, study, worked

__all__ = ["quick"]

#: Simulates a process of another container: a worker with another host name.
_ELSEWHERE = """
import sys
from dataclasses import replace
from pathlib import Path
import bdhf.tuning.workers.liveness as presence
from bdhf.records import Owner
owner = replace(Owner.here(), host="elsewhere")
Owner.here = classmethod(lambda cls: owner)
with presence.present(Path(sys.argv[1])):
    print(owner, flush=True)
    sys.stdin.read()
"""


@contextmanager
def elsewhere(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Owner]]:
    """A worker whose owner is not a process of this machine."""
    command = [sys.executable, "-c", _ELSEWHERE, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        owner = Owner.parse(process.stdout.readline().strip())
        assert owner is not None
        assert not owner.is_here
        yield process, owner
        process.kill()


def test_a_process_that_cannot_be_looked_up_has_left_once_it_has_ended(tmp_path: Path) -> None:
    """After a kill; an unknown owner, as from before a restart, has left too."""
    with elsewhere(tmp_path) as (process, owner):
        assert not has_left(tmp_path, owner)
        process.kill()
        process.wait()
        assert has_left(tmp_path, owner)
    assert has_left(tmp_path, replace(owner, host="before"))


def test_a_process_of_this_machine_leaves_no_file_behind(tmp_path: Path) -> None:
    """A worker removes its file at its end, and the files of killed workers at its start."""
    killed = tmp_path / f".worker-{replace(Owner.here(), started=1.0, ticks=1)}"
    killed.touch()

    with present(tmp_path):
        assert not has_left(tmp_path, Owner.here())
        assert not killed.exists()

    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("quick")
def test_a_study_continues_after_the_machine_was_started_again(tmp_path: Path) -> None:
    """A trial whose worker was killed by a restart is made again; no worker waits for it."""
    of, location = study(tmp_path, ("trials: 8", "trials: 3")), StudyLocation(tmp_path / "out")
    cell = of.cell("adam")
    with quiet():
        trial = study_of(of, cell, location.open()).ask()
        trial.set_user_attr("owner", str(replace(Owner.here(), host="before")))

    worked(of, location.folder)

    assert [len(arm.trials) for arm in stored_trials(of, location.open())] == [3, 3]

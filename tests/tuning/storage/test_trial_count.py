"""The number of trials can be raised, and not lowered once there are results."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest

from bdhf.records import InputError
from bdhf.tuning.outcome.collect import collect_study, stored_trials
from bdhf.tuning.storage.storage import StudyLocation, quiet, study_of
from bdhf.tuning.study.study import Study, open_study
from tests.messages import naming
from tests.tuning.small import placed
from tests.tuning.synthetic import quick, study, worked

__all__ = ["quick"]
pytestmark = pytest.mark.usefixtures("quick")

RANDOM = ("{type: tpe, startup: 3}", "random")


def of(home: Path, trials: int) -> Study:
    """The study with so many trials in its file."""
    return study(home, RANDOM, ("trials: 8", f"trials: {trials}"))


def files(location: StudyLocation) -> dict[Path, bytes]:
    """The collected files, without the journal, which changes at every opening."""
    paths = [path for path in location.folder.glob("*.*") if path != location.journal]
    return {path: path.read_bytes() for path in paths}


@pytest.mark.parametrize("by", ["file", "--set"])
def test_fewer_trials_than_were_made_are_refused(tmp_path: Path, by: str) -> None:
    """In the file and by --set: a line with location, number and solutions; nothing changes."""
    location = StudyLocation(tmp_path / "out")
    worked(of(tmp_path, 3), location.folder)
    collect_study(of(tmp_path, 3), location)
    before, trials = files(location), placed(of(tmp_path, 3), location.open())
    file = tmp_path / "study.yaml"
    fewer = of(tmp_path, 2) if by == "file" else open_study(file, ["trials=2"])

    with pytest.raises(InputError) as told:
        collect_study(fewer, location)

    (line,) = told.value.lines
    where = str(file) if by == "file" else "--set trials=2"
    assert line.startswith(f"{where}: small/adam ")
    assert re.search(naming(3, "`trials: 3`", "`name`"), line)
    assert files(location) == before
    assert placed(of(tmp_path, 3), location.open()) == trials


def test_fewer_than_were_asked_for_are_refused_as_soon_as_one_is_finished(tmp_path: Path) -> None:
    """Stopping early, with results known, selects the best of fewer trials."""
    location, seven = StudyLocation(tmp_path / "out"), of(tmp_path, 7)
    stored_trials(seven, location.open())
    worked(of(tmp_path, 1), location.folder)  # without results the number may be lowered
    stored_trials(seven, location.open())

    with pytest.raises(InputError, match=naming(7, 1, "`trials: 7`", "`name`")):
        stored_trials(of(tmp_path, 4), location.open())
    assert [len(arm.trials) for arm in stored_trials(of(tmp_path, 9), location.open())] == [1, 1]


def test_a_study_that_kept_no_number_is_held_to_the_trials_that_it_has(tmp_path: Path) -> None:
    """A study of an earlier version: fewer trials than are finished are refused, more are not."""
    location, three = StudyLocation(tmp_path / "out"), of(tmp_path, 3)
    worked(three, location.folder)
    with quiet():
        for cell in three.cells:
            study_of(three, cell, location.open()).set_user_attr("bdhf trials", 0)

    with pytest.raises(InputError, match=naming(3, "`trials: 3`", "`name`")):
        stored_trials(of(tmp_path, 2), location.open())
    stored_trials(of(tmp_path, 4), location.open())
    with quiet():
        summaries = optuna.get_all_study_summaries(location.open())
    assert [summary.user_attrs["bdhf trials"] for summary in summaries] == [4, 4]

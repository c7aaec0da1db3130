"""The number of trials may be raised, and not lowered once results were seen."""

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


def files(place: StudyLocation) -> dict[Path, bytes]:
    """What was collected: all but the journal, which takes note of everybody who opens it."""
    paths = [path for path in place.folder.glob("*.*") if path != place.journal]
    return {path: path.read_bytes() for path in paths}


@pytest.mark.parametrize("by", ["file", "--set"])
def test_fewer_trials_than_were_made_are_refused(tmp_path: Path, by: str) -> None:
    """In the file and by --set: where, how many there were, and the ways out; nothing changes."""
    place = StudyLocation(tmp_path / "out")
    worked(of(tmp_path, 3), place.folder)
    collect_study(of(tmp_path, 3), place)
    before, trials = files(place), placed(of(tmp_path, 3), place.open())
    file = tmp_path / "study.yaml"
    fewer = of(tmp_path, 2) if by == "file" else open_study(file, ["trials=2"])

    with pytest.raises(InputError) as told:
        collect_study(fewer, place)

    (line,) = told.value.lines
    where = str(file) if by == "file" else "--set trials=2"
    assert line.startswith(f"{where}: small/adam ")
    assert re.search(naming(3, "`trials: 3`", "`name`"), line)
    assert files(place) == before
    assert placed(of(tmp_path, 3), place.open()) == trials


def test_fewer_than_were_asked_for_are_refused_as_soon_as_one_is_finished(tmp_path: Path) -> None:
    """To stop early, having seen results, is a choice of the best of fewer."""
    place, seven = StudyLocation(tmp_path / "out"), of(tmp_path, 7)
    stored_trials(seven, place.open())
    worked(of(tmp_path, 1), place.folder)  # nothing was seen yet: it may be lowered
    stored_trials(seven, place.open())

    with pytest.raises(InputError, match=naming(7, 1, "`trials: 7`", "`name`")):
        stored_trials(of(tmp_path, 4), place.open())
    assert [len(one.trials) for one in stored_trials(of(tmp_path, 9), place.open())] == [1, 1]


def test_a_study_that_kept_no_number_is_held_to_the_trials_that_it_has(tmp_path: Path) -> None:
    """One that an earlier version made: fewer than it has finished are refused, more are not."""
    place, three = StudyLocation(tmp_path / "out"), of(tmp_path, 3)
    worked(three, place.folder)
    with quiet():
        for cell in three.cells:
            study_of(three, cell, place.open()).set_user_attr("bdhf trials", 0)

    with pytest.raises(InputError, match=naming(3, "`trials: 3`", "`name`")):
        stored_trials(of(tmp_path, 2), place.open())
    stored_trials(of(tmp_path, 4), place.open())
    with quiet():
        summaries = optuna.get_all_study_summaries(place.open())
    assert [summary.user_attrs["bdhf trials"] for summary in summaries] == [4, 4]

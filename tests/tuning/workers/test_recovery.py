"""Trials that their worker did not finish: which of them count as failed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from bdhf.records import Owner
from bdhf.tuning.sampling.trial_slots import trial_slots
from bdhf.tuning.storage.storage import StudyLocation, quiet
from bdhf.tuning.workers.recovery import INTERRUPTED, MOST_DEATHS, POOL, recover
from tests.messages import naming
from tests.tuning.synthetic import study

GONE = str(Owner(Owner.here().host, 2**22 + 7, 1.0))  # no process has such a number
ELSEWHERE = str(Owner("another-boot", 1, 1.0))


def ended(home: Path, times: int, **attributes: Any) -> optuna.Study:
    """A study of one trial that workers left running so many times, each time recovered."""
    cell, location = study(home).cell("adam"), StudyLocation(home)
    with quiet():
        cell_study = optuna.create_study()
        for _ in range(times):
            trial = cell_study.ask()
            trial.suggest_float("lr", 1e-4, 1.0, log=True)
            for name, value in {"settings": {}, **attributes}.items():
                trial.set_user_attr(name, value)
            recover(cell_study, cell, location, 1, {})
    return cell_study


def test_a_trial_that_kills_its_workers_ends_as_failed(tmp_path: Path) -> None:
    """After so many killed workers of a running pool, it has the worst value and a reason."""
    cell_study = ended(tmp_path, MOST_DEATHS, owner=GONE, **{POOL: str(Owner.here())})
    (last,) = trial_slots(cell_study.get_trials(), 1).finished

    assert last.values == [80.0]
    assert re.search(naming(MOST_DEATHS), last.user_attrs["reason"])


@pytest.mark.parametrize(
    "attributes", [{POOL: GONE}, {POOL: ELSEWHERE}, {INTERRUPTED: True}], ids=str
)
def test_a_trial_that_was_killed_with_the_study_is_not_to_blame(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    """However often the whole study is killed or interrupted, the trial is made again."""
    cell_study = ended(tmp_path, MOST_DEATHS + 2, owner=GONE, **attributes)
    now = trial_slots(cell_study.get_trials(), 1)

    assert now.positions[0].state is TrialState.WAITING
    assert now.positions[0].user_attrs["deaths"] == 0
    assert len({t.params["lr"] for t in cell_study.get_trials() if t.params}) == 1


@pytest.mark.parametrize("attributes", [{}, {"owner": GONE}], ids=["nobody's", "named"])
def test_a_trial_without_settings_is_not_to_blame(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    """A worker that was killed before its settings were proposed was not killed by them."""
    cell, location = study(tmp_path).cell("adam"), StudyLocation(tmp_path)
    with quiet():
        cell_study = optuna.create_study()
        trial = cell_study.ask()
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        recover(cell_study, cell, location, 1, {trial._trial_id: float("-inf")})
    (again,) = trial_slots(cell_study.get_trials(), 1).positions

    assert again.state is TrialState.WAITING
    assert again.user_attrs["deaths"] == 0

"""Who is to blame for a trial that its worker did not end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from bdhf.records import Owner
from bdhf.tuning.sampling.trial_slots import trial_slots
from bdhf.tuning.storage.storage import StudyLocation, quiet
from bdhf.tuning.workers.recovery import INTERRUPTED, MOST_DEATHS, POOL, recover
from tests.tuning.synthetic import study

GONE = str(Owner(Owner.here().host, 2**22 + 7, 1.0))  # no process has such a number
ELSEWHERE = str(Owner("another-boot", 1, 1.0))


def ended(home: Path, times: int, **known: Any) -> optuna.Study:
    """A study of one trial that workers left running so many times, each time revived."""
    cell, place = study(home).cell("adam"), StudyLocation(home)
    with quiet():
        found = optuna.create_study()
        for _ in range(times):
            trial = found.ask()
            trial.suggest_float("lr", 1e-4, 1.0, log=True)
            for name, value in {"settings": {}, **known}.items():
                trial.set_user_attr(name, value)
            recover(found, cell, place, 1, {})
    return found


def test_a_trial_that_kills_its_workers_ends_as_failed(tmp_path: Path) -> None:
    """After so many deaths while the pool lives, it has the worst value, and its reason."""
    found = ended(tmp_path, MOST_DEATHS, owner=GONE, **{POOL: str(Owner.here())})
    (last,) = trial_slots(found.get_trials(), 1).finished

    assert last.values == [80.0]
    assert last.user_attrs["reason"] == f"the worker died {MOST_DEATHS} times of it"


@pytest.mark.parametrize("known", [{POOL: GONE}, {POOL: ELSEWHERE}, {INTERRUPTED: True}], ids=str)
def test_a_trial_that_was_killed_with_the_study_is_not_to_blame(
    tmp_path: Path, known: dict[str, Any]
) -> None:
    """However often the whole study is killed, or told to end, the trial is made again."""
    found = ended(tmp_path, MOST_DEATHS + 2, owner=GONE, **known)
    now = trial_slots(found.get_trials(), 1)

    assert now.places[0].state is TrialState.WAITING
    assert now.places[0].user_attrs["deaths"] == 0
    assert len({t.params["lr"] for t in found.get_trials() if t.params}) == 1


@pytest.mark.parametrize("known", [{}, {"owner": GONE}], ids=["nobody's", "named"])
def test_a_trial_without_settings_is_not_to_blame(tmp_path: Path, known: dict[str, Any]) -> None:
    """Whoever was killed while its settings were proposed did not die of them."""
    cell, place = study(tmp_path).cell("adam"), StudyLocation(tmp_path)
    with quiet():
        of = optuna.create_study()
        trial = of.ask()
        for name, value in known.items():
            trial.set_user_attr(name, value)
        recover(of, cell, place, 1, {trial._trial_id: float("-inf")})
    (again,) = trial_slots(of.get_trials(), 1).places

    assert again.state is TrialState.WAITING
    assert again.user_attrs["deaths"] == 0

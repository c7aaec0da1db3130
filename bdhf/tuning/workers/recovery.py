"""Trials of workers that have died: failed, and asked for again in their places.

In a database Optuna's heartbeat tells; in a journal file a look at the process, or at what it
keeps locked where it cannot be seen.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from bdhf.records import Owner, Status
from bdhf.tuning.sampling.trial_slots import AGAIN, DEFAULT, TrialSlots, trial_slots
from bdhf.tuning.storage.storage import GRACE, StudyLocation, had_outage
from bdhf.tuning.study.objective import HOPELESS, Goal
from bdhf.tuning.study.study import StudyCell
from bdhf.tuning.workers.liveness import has_left

#: A trial whose worker has died so often is not made again: it has failed.
MOST_DEATHS = 3

#: Seconds in which a worker that asked for a trial says who it is.
_UNNAMED_SECONDS = 10.0

#: User attribute: that a person, or a full disk, ended a trial, which is no death.
INTERRUPTED = "interrupted"

#: User attribute: the process that is at a trial, as `Owner` writes it.
OWNER = "owner"

#: User attribute: the process whose pool the worker of a trial is of, as `Owner` writes it.
POOL = "crew"

#: User attribute: how often workers died of a trial.
_DEATHS = "deaths"


def recover(
    study: optuna.Study,
    cell: StudyCell,
    location: StudyLocation,
    wanted: int,
    seen: dict[int, float],
) -> None:
    """Fail the trials whose workers have died, and ask for them again with the same settings.

    A trial that workers have died of too often is finished instead, with the worst value. `seen`
    keeps since when trials without an owner have been seen, by this machine's own clock.
    """
    storage: BaseStorage = study._storage
    if location.is_shared:
        if had_outage(study, GRACE * location.heartbeat):
            seen.clear()  # who has no owner yet could not name it meanwhile
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(study)
    now = trial_slots(study.get_trials(deepcopy=False), wanted)
    running = [*now.running, *(t for t in _surplus(study, now) if t.state is TrialState.RUNNING)]
    for trial in running:
        if _is_dead(trial, location, seen):
            try:
                storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            except RuntimeError:  # another worker has just done so
                continue
    for trial in trial_slots(study.get_trials(deepcopy=False), wanted).abandoned:
        _again(study, trial, cell)


def fail_own_trials(study: optuna.Study, number: int) -> None:
    """End a trial of this process that an interruption left running: no one has died of it."""
    trial = next(t for t in study.get_trials(deepcopy=False) if t.number == number)
    if trial.state is TrialState.RUNNING:
        study._storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def _surplus(study: optuna.Study, now: TrialSlots) -> list[FrozenTrial]:
    return [t for t in study.get_trials(deepcopy=False) if t.number in now.surplus]


def _is_dead(trial: FrozenTrial, location: StudyLocation, seen: dict[int, float]) -> bool:
    """Whether the worker of a trial is known to have ended."""
    owner = Owner.parse(str(trial.user_attrs.get(OWNER, "")))
    if owner is not None:
        return not location.is_shared and has_left(location.folder, owner)
    seconds = GRACE * location.heartbeat if location.is_shared else _UNNAMED_SECONDS
    now = time.monotonic()
    return now - seen.setdefault(trial._trial_id, now) > seconds


def _again(study: optuna.Study, trial: FrozenTrial, cell: StudyCell) -> None:
    """Ask for a trial again; one of too many deaths is finished as it stands."""
    deaths = int(trial.user_attrs.get(_DEATHS, 0)) + _is_to_blame(trial)
    attributes = {AGAIN: trial.number, _DEATHS: deaths}
    attributes |= {DEFAULT: True} if trial.user_attrs.get(DEFAULT) else {}
    noted = _noted(trial)
    if deaths < MOST_DEATHS:
        asked = {**noted, "fixed_params": _settled(trial)}  # as `enqueue_trial` has it
        waiting = TrialState.WAITING
        study.add_trial(create_trial(state=waiting, system_attrs=asked, user_attrs=attributes))
        return
    reason = f"the worker died {deaths} times of it"
    study.add_trial(
        create_trial(
            params=trial.params,
            distributions=trial.distributions,
            values=[_worst(goal, index, study) for index, goal in enumerate(cell.goals)],
            system_attrs=noted,
            user_attrs={
                **attributes,
                "settings": trial.user_attrs.get("settings", {}),
                "status": str(Status.ERROR),
                "reason": reason,
            },
        )
    )


def _is_to_blame(trial: FrozenTrial) -> bool:
    """Whether a worker may have died of a trial: not if it was ended, or its pool has ended too."""
    attributes = trial.user_attrs
    if attributes.get(INTERRUPTED) or "settings" not in attributes:  # never begun
        return False
    pool = Owner.parse(str(attributes.get(POOL, "")))
    return pool is None or (pool.is_here and not pool.is_gone)


def _settled(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters of a trial; of one that died while they were drawn, those it was asked with.

    The others are drawn anew, in the same place: so they are the same again.
    """
    fixed: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
    return trial.params if "settings" in trial.user_attrs else fixed


def _noted(trial: FrozenTrial) -> dict[str, Any]:
    """What a sampler keeps with a trial that it has proposed: CMA-ES its state and generation.

    Optuna does not ask it again where the settings are given. What a pruner keeps is made again.
    """
    if "settings" not in trial.user_attrs:
        return {}
    noted: dict[str, Any] = trial.system_attrs
    others = ("fixed_params", "completed_rung_")
    return {key: value for key, value in noted.items() if not key.startswith(others)}


def _worst(goal: Goal, index: int, study: optuna.Study) -> float:
    """What a failed trial is worth; of a loss, the largest value so far."""
    if goal.target is not None:
        return 2 * goal.horizon
    values = [t.values[index] for t in study.get_trials(deepcopy=False) if t.values]
    return max(values, default=HOPELESS)

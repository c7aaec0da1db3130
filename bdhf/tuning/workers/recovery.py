"""Trials of killed workers: we fail them and enqueue them again at their positions.

In a database Optuna's heartbeat shows that a worker has ended; in a journal file its process
does, or its lock if the process is not visible.
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

#: A trial whose worker was killed this often is not repeated: it has failed.
MOST_DEATHS = 3

#: Seconds in which the worker of a new trial names itself.
_UNNAMED_SECONDS = 10.0

#: User attribute: an interruption, or a full disk, ended the trial.
INTERRUPTED = "interrupted"

#: User attribute: the process of the trial, as `Owner` writes it.
OWNER = "owner"

#: User attribute: the process of the worker's pool, as `Owner` writes it.
POOL = "crew"

#: User attribute: how often a worker was killed in the trial.
_DEATHS = "deaths"


def recover(
    study: optuna.Study,
    cell: StudyCell,
    location: StudyLocation,
    wanted: int,
    seen: dict[int, float],
) -> None:
    """Fail the trials whose workers were killed, and enqueue them again with the same settings.

    A trial in which workers were killed too often is finished with the worst value instead. `seen`
    holds when each trial without an owner was first seen, by the clock of this machine.
    """
    storage: BaseStorage = study._storage
    if location.is_shared:
        if had_outage(study, GRACE * location.heartbeat):
            seen.clear()  # no worker could name itself during the outage
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
    """End a trial of this process that an interruption left running; it is not at fault."""
    trial = next(t for t in study.get_trials(deepcopy=False) if t.number == number)
    if trial.state is TrialState.RUNNING:
        study._storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def _surplus(study: optuna.Study, now: TrialSlots) -> list[FrozenTrial]:
    return [t for t in study.get_trials(deepcopy=False) if t.number in now.surplus]


def _is_dead(trial: FrozenTrial, location: StudyLocation, seen: dict[int, float]) -> bool:
    """Whether the worker of a trial has certainly ended."""
    owner = Owner.parse(str(trial.user_attrs.get(OWNER, "")))
    if owner is not None:
        return not location.is_shared and has_left(location.folder, owner)
    seconds = GRACE * location.heartbeat if location.is_shared else _UNNAMED_SECONDS
    now = time.monotonic()
    return now - seen.setdefault(trial._trial_id, now) > seconds


def _again(study: optuna.Study, trial: FrozenTrial, cell: StudyCell) -> None:
    """Enqueue a trial again; after too many killed workers, finish it as failed."""
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
    """Whether a trial may have ended its worker: not after an interruption or with its pool."""
    attributes = trial.user_attrs
    if attributes.get(INTERRUPTED) or "settings" not in attributes:  # never started
        return False
    pool = Owner.parse(str(attributes.get(POOL, "")))
    return pool is None or (pool.is_here and not pool.is_gone)


def _settled(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters of a trial; before all were drawn, only those with which it was enqueued.

    The others are drawn again at the same position, so they are the same.
    """
    fixed: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
    return trial.params if "settings" in trial.user_attrs else fixed


def _noted(trial: FrozenTrial) -> dict[str, Any]:
    """The attributes that a sampler stored with a trial: CMA-ES stores its state and generation.

    Optuna does not call the sampler again for fixed settings. A pruner writes its attributes again.
    """
    if "settings" not in trial.user_attrs:
        return {}
    noted: dict[str, Any] = trial.system_attrs
    others = ("fixed_params", "completed_rung_")
    return {key: value for key, value in noted.items() if not key.startswith(others)}


def _worst(goal: Goal, index: int, study: optuna.Study) -> float:
    """The value of a failed trial; for a loss, the largest value so far."""
    if goal.target is not None:
        return 2 * goal.horizon
    values = [t.values[index] for t in study.get_trials(deepcopy=False) if t.values]
    return max(values, default=HOPELESS)

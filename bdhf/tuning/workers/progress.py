"""One line about a trial, for the terminal."""

from __future__ import annotations

from typing import Any

from optuna.trial import FrozenTrial, TrialState

from bdhf.records import unit_of
from bdhf.text.formatting import short
from bdhf.tuning.sampling.trial_slots import TrialSlots
from bdhf.tuning.study.study import StudyCell


def line_of(cell: StudyCell, trial: FrozenTrial, now: TrialSlots) -> str:
    """`adam 3/24: 71.5 updates; lr=0.0031` for a trial that has just ended."""
    progress = f"{cell.label} {len(now.finished)}/{now.wanted}"
    settings = ", ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
    return f"{progress}: {_ended(cell, trial)}; {settings}"


def _ended(cell: StudyCell, trial: FrozenTrial) -> str:
    status, reason = (str(trial.user_attrs.get(key, "")) for key in ("status", "reason"))
    if trial.state is TrialState.PRUNED:
        return f"pruned ({reason})"
    if status not in ("", "done"):
        return f"{status} ({reason})"
    goal, value = cell.goals[0], trial.values[0]
    if goal.target is not None and value > goal.horizon:
        return f"missed {goal.target.label} on every seed"
    return f"{short(value)} {unit_of(goal.estimand)}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return short(value)
    return str(value.get("type", value)) if isinstance(value, dict) else str(value)

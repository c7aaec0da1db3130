"""Trials and studies in words, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from bdhf.records import TunedArm, Tuning, unit_of
from bdhf.tuning.standing import Standing
from bdhf.tuning.study import Cell


def line_of(cell: Cell, trial: FrozenTrial, now: Standing) -> str:
    """`adam 3/24: 71.5 updates; lr=0.0031` for a trial that has just ended."""
    place = f"{cell.label} {len(now.finished)}/{now.wanted}"
    settings = ", ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
    return f"{place}: {_ended(cell, trial)}; {settings}"


def _ended(cell: Cell, trial: FrozenTrial) -> str:
    status, reason = (str(trial.user_attrs.get(key, "")) for key in ("status", "reason"))
    if trial.state is TrialState.PRUNED:
        return f"pruned ({reason})"
    if status not in ("", "done"):
        return f"{status} ({reason})"
    goal, value = cell.goals[0], trial.values[0]
    if goal.target is not None and value > goal.horizon:
        return f"missed {goal.target.label} on every seed"
    return f"{value:.4g} {unit_of(goal.estimand)}"


def summary(record: Tuning) -> Iterator[str]:
    """A line for every arm: its best trial, beside the settings of the spec."""
    for arm in record.arms:
        if arm.best is None:
            yield f"{arm.label}: no trial has been completed ({arm.finished} ended)"
        elif _missed(arm, record):
            yield f"{arm.label}: all {arm.finished} trials missed {_target(record)}; {advice(arm)}"
        else:
            settings = ", ".join(f"{path}={_short(value)}" for path, value in arm.settings.items())
            edge = f" (at the edge of its range: {', '.join(arm.at_edge)})" if arm.at_edge else ""
            unit = unit_of(record.objectives[0])
            yield f"{arm.label}: {arm.best_value:.4g} {unit}, trial {arm.best}: {settings}{edge}"


def advice(arm: TunedArm) -> str:
    """What to change where every trial missed."""
    budget = f"give more than {arm.budget.limit:g} {arm.budget.axis}, or an easier target"
    wider = f", or a wider range for {', '.join(arm.at_edge)}" if arm.at_edge else ""
    return f"{budget}{wider}"


def _missed(arm: TunedArm, record: Tuning) -> bool:
    horizon = arm.horizons.get(record.objectives[0])
    return horizon is not None and arm.best_value is not None and arm.best_value > horizon


def _target(record: Tuning) -> str:
    return record.target.label if record.target else "the target"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value.get("type", value)) if isinstance(value, dict) else str(value)

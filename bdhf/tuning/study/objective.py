"""The value of a trial: the mean cost of its runs over the tuning seeds; less is better.

    hits      mean of min(U, τ) over seeds, a miss costing τ, if any seed reached the target
    misses    τ (1 + g), g = r / (1 + r) in (0, 1)       if none did
    failures  2 τ                                         if a run diverged or left no outcome

r is the mean over seeds of (L_end - target) ÷ (L_start - target), the remaining fraction of the way
to the target, from either side. It orders trials that all miss, and each of them comes after every
hit. τ is the budget on its axis, and `safety.seconds` for seconds, which no run exceeds. A loss is
its own value, up to twice the initial loss, which is the value of a failure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bdhf.experiments.spec.schema import Safety
from bdhf.records import AXES, LOSSES, Budget, Status, Target, axis_of
from bdhf.stats.observations.losses import METRIC, losses
from bdhf.stats.observations.targets import observe_targets

#: Value of a trial that failed before its first loss, where losses are tuned.
HOPELESS = 1e12

#: Smallest remaining fraction of a miss, even at the target: no miss has the value of a hit.
_LEAST_LEFT = 1e-6


@dataclass(frozen=True)
class SeedRun:
    """One run of a trial: its status and its curve."""

    seed: int
    run_id: str
    status: Status
    reason: str
    curve: pd.DataFrame


@dataclass(frozen=True)
class Goal:
    """One objective of an arm."""

    estimand: str
    target: Target | None  # None: a loss
    horizon: float  # cost of a miss; NaN for a loss
    budget: Budget

    @property
    def metric(self) -> str:
        """The metric of the target or the loss."""
        return self.target.metric if self.target else METRIC

    @property
    def is_upward(self) -> bool:
        """Whether a larger metric is better."""
        return self.target is not None and self.target.is_upward


def horizon_of(estimand: str, budget: Budget, safety: Safety) -> float | None:
    """The cost of a miss; None where nothing limits that axis, NaN for a loss."""
    if estimand in LOSSES:
        return math.nan
    axis = axis_of(estimand)
    if axis == budget.axis:
        return budget.limit
    return safety.seconds if axis == "seconds" else None


def trial_cost(goal: Goal, run: SeedRun) -> tuple[float, bool]:
    """The cost of one run, and whether it is a hit; a loss is a hit unless the run diverged.

    The cost is NaN where the run left no outcome.
    """
    runs = _table(run)
    curves = run.curve.assign(arm="", seed=run.seed, run_id=run.run_id)
    if goal.target is None:
        row = losses(runs, curves, goal.estimand, goal.budget).iloc[0]
        return float(row["cost"]), bool(row["hit"])
    if curves.empty:
        return (goal.horizon if run.status is Status.DIVERGED else math.nan), False
    seen = observe_targets(runs, curves, goal.target, axis_of(goal.estimand)).iloc[0]
    if run.status.is_missing:
        return math.nan, False
    hit = bool(seen["reached"]) and float(seen["time"]) <= goal.horizon
    return (float(seen["time"]) if hit else goal.horizon), hit


def value(goal: Goal, runs: Sequence[SeedRun]) -> float:
    """The value of a trial with these runs, at least one; always finite."""
    failed = any(run.status is not Status.DONE for run in runs)
    if goal.target is None:
        return _of_losses(goal, runs, failed=failed)
    if failed:
        return 2 * goal.horizon
    costs = [trial_cost(goal, run) for run in runs]
    if any(hit for _, hit in costs):
        return float(np.mean([spent for spent, _ in costs]))
    left = max(float(np.mean([_left(goal.target, run.curve) for run in runs])), _LEAST_LEFT)
    return goal.horizon * (1 + left / (1 + left))


def final(goal: Goal, run: SeedRun) -> float:
    """The last finite value of the metric; NaN if there is none."""
    return _ends(run.curve, goal.metric)[1]


def spent(run: SeedRun, axis: str) -> float:
    """The total cost of a run on an axis; 0 where nothing was recorded."""
    column = AXES[axis][0]
    if column not in run.curve or run.curve.empty:
        return 0.0
    total = float(run.curve[column].iloc[-1])
    return total if math.isfinite(total) else 0.0


def _of_losses(goal: Goal, runs: Sequence[SeedRun], *, failed: bool) -> float:
    starts = [start for run in runs if math.isfinite(start := _ends(run.curve, METRIC)[0])]
    worst = float(np.mean([start + abs(start) for start in starts])) if starts else HOPELESS
    costs = [trial_cost(goal, run)[0] for run in runs]
    if failed or not all(map(math.isfinite, costs)):
        return worst
    return min(float(np.mean(costs)), worst)


def _left(target: Target, curve: pd.DataFrame) -> float:
    """The remaining fraction of the way to the target: 0 at it, 1 at the start, or more.

    It is 1 if the metric was never finite.
    """
    start, end = (float(target.short_of(value)) for value in _ends(curve, target.metric))
    if math.isnan(end):
        return 1.0
    way = start if start > 0 else end
    return max(end / way, 0.0) if way > 0 else 0.0


def _ends(curve: pd.DataFrame, metric: str) -> tuple[float, float]:
    """The first and the last finite value of a metric."""
    if metric not in curve:
        return math.nan, math.nan
    values = curve[metric].to_numpy(dtype=float, na_value=np.nan)
    values = values[np.isfinite(values)]
    return (float(values[0]), float(values[-1])) if len(values) else (math.nan, math.nan)


def _table(run: SeedRun) -> pd.DataFrame:
    """The run as a table with one row."""
    row = {"arm": "", "seed": run.seed, "run_id": run.run_id, "status": str(run.status)}
    last = {column: [spent(run, axis)] for axis, (column, _) in AXES.items()}
    return pd.DataFrame({**{key: [value] for key, value in row.items()}, **last})

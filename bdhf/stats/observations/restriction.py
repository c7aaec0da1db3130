"""Restricted costs: the cost of a run when some runs never reach the target.

    Y = min(U, τ)   and   Y = τ for a run that misses

The mean of Y is the restricted mean survival time (RMST; Royston and Parmar, 2013). On the axis
that the budget names, τ is the budget and Y is observed for every run. On another axis runs that
miss end at different costs, and τ is where the first of them ended, the last point up to which
every run was observed. A diverged run never reaches the target, so it costs τ however early it
ended, and does not define τ: where only diverged runs miss, τ is the budget at the slowest pace of
their arms. Where no run misses, nothing is restricted: τ is the largest cost observed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from bdhf.records import Budget, Status
from bdhf.stats.observations.targets import OUTCOMES, axis_column


@dataclass(frozen=True)
class Horizon:
    """The restriction τ in units of the axis, and its source.

    NaN when nothing has run, and for losses, which are not restricted.
    """

    value: float
    source: Literal["budget", "first miss", "slowest pace", "largest cost", "loss"]


def horizon(observed: pd.DataFrame, axis: str, budget: Budget) -> Horizon:
    """Choose where the costs of these runs are restricted.

    `observed` comes from `targets.observe_targets`, with the compared arms only, and has the column
    `slowest` of `cost_bounds.slowest_cost`.

    >>> observed = pd.DataFrame({"status": ["done"] * 3, "reached": [True, False, False],
    ...                          "time": [12.0, 30.0, 41.0], "slowest": 50.0})
    >>> horizon(observed, "seconds", Budget(updates=300))
    Horizon(value=30.0, source='first miss')
    """
    if axis == budget.axis:
        return Horizon(budget.limit, "budget")
    diverged = observed["status"] == Status.DIVERGED.value
    follow_up = observed.loc[~observed["reached"] & ~diverged, "time"].min()
    if not np.isnan(follow_up):
        return Horizon(float(follow_up), "first miss")
    slowest, largest = observed.loc[diverged, "slowest"].max(), observed["time"].max()
    if not np.isnan(slowest):
        return Horizon(float(np.fmax(slowest, largest)), "slowest pace")
    return Horizon(float(largest), "largest cost")


def restrict(observed: pd.DataFrame, horizon: Horizon) -> pd.DataFrame:
    """Add `cost` = Y to the observations, NaN where data are missing, and `hit` = U ≤ τ.

    A run without a recorded cost on the axis is missing data. On the budget's own axis a miss needs
    no recorded cost: it costs the budget. A diverged run needs none either, but a τ that does not
    come from hits: without one it is missing data too.
    """
    reached, time = observed["reached"], observed["time"]
    diverged = observed["status"] == Status.DIVERGED.value
    has_cost = time.notna() & ~diverged
    if horizon.source == "budget":
        has_cost |= ~reached & observed["status"].isin(OUTCOMES)
    elif horizon.source == "first miss":
        has_cost |= diverged
    elif horizon.source == "slowest pace":
        has_cost |= diverged & observed["slowest"].notna()
    cost = time.where(reached, horizon.value).clip(upper=horizon.value).where(has_cost)
    return observed.assign(cost=cost, hit=reached & (time <= horizon.value))


def smallest_cost(restricted: pd.DataFrame, curves: pd.DataFrame, axis: str) -> float:
    """Find the smallest positive cost of any evaluation or outcome of these arms, or else 1.

    A target that holds before the first update costs 0, whose logarithm does not exist; in ratios
    such a run costs this value instead, one step of the grid on which costs are observed.
    """
    column = axis_column(axis)
    curves = curves.reindex(columns=["arm", column])
    seen = curves.loc[curves["arm"].isin(restricted["arm"].unique()), column].astype(float)
    costs = pd.concat([seen, restricted["cost"]])
    smallest = costs[costs > 0].min()
    return 1.0 if np.isnan(smallest) else float(smallest)

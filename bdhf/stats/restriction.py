"""Restricted costs: what a run costs when some runs never reach the target.

    Y = min(U, τ)   and   Y = τ for a run that misses

The mean of Y is the restricted mean survival time (RMST; Royston and Parmar, 2013). On the axis
that the budget names, τ is the budget and Y is observed for every run. On another axis runs that
miss end at different costs, and τ is where the first of them ended, the last point up to which
every run was watched. Where no run misses, nothing is restricted: τ is the largest cost seen.
A diverged run never reaches the target, so it costs τ however early it ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from bdhf.records import Budget, Status
from bdhf.stats.targets import OUTCOMES, axis_column


@dataclass(frozen=True)
class Horizon:
    """The restriction τ in units of the axis, and what it comes from.

    NaN when nothing has run, and for losses, which are not restricted.
    """

    value: float
    source: Literal["budget", "first miss", "largest cost", "loss"]


def horizon(observed: pd.DataFrame, axis: str, budget: Budget) -> Horizon:
    """Choose where the costs of these runs are restricted.

    `observed` comes from `targets.observe`, with the arms that are compared and no other.

    >>> observed = pd.DataFrame({"status": ["done"] * 3, "reached": [True, False, False],
    ...                          "time": [12.0, 30.0, 41.0]})
    >>> horizon(observed, "seconds", Budget(updates=300))
    Horizon(value=30.0, source='first miss')
    """
    if axis == budget.axis:
        return Horizon(budget.limit, "budget")
    miss = ~observed["reached"] & (observed["status"] != Status.DIVERGED.value)
    follow_up = observed.loc[miss, "time"].min()
    if not np.isnan(follow_up):
        return Horizon(float(follow_up), "first miss")
    return Horizon(float(observed["time"].max()), "largest cost")


def restrict(observed: pd.DataFrame, horizon: Horizon) -> pd.DataFrame:
    """Add `cost` = Y to the observations, NaN where data are missing, and `hit` = U ≤ τ.

    A run whose cost on the axis was not recorded is missing data. On the budget's own axis a miss
    needs no recorded cost: it costs the budget.
    """
    diverged = observed["status"] == Status.DIVERGED.value
    reached, time = observed["reached"], observed["time"]
    known = diverged | time.notna()
    if horizon.source == "budget":
        known |= ~reached & observed["status"].isin(OUTCOMES)
    cost = time.where(reached, horizon.value).clip(upper=horizon.value).where(known)
    return observed.assign(cost=cost, hit=reached & (time <= horizon.value))


def smallest_cost(restricted: pd.DataFrame, curves: pd.DataFrame, axis: str) -> float:
    """Find the smallest positive cost of any evaluation or outcome of these arms, or else 1.

    A target that holds before the first update costs 0, whose logarithm does not exist; in ratios
    such a run costs this much instead, one step of the grid on which costs are seen.
    """
    column = axis_column(axis)
    curves = curves.reindex(columns=["arm", column])
    seen = curves.loc[curves["arm"].isin(restricted["arm"].unique()), column].astype(float)
    costs = pd.concat([seen, restricted["cost"]])
    smallest = costs[costs > 0].min()
    return 1.0 if np.isnan(smallest) else float(smallest)

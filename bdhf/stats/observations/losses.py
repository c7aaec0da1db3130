"""Losses of runs, for comparisons without a target: final, best, and the mean over the budget.

    final_loss         L(T)            best_loss   min_t L(t)
    area_under_curve   (1/τ) ∫₀^τ L(t) dt    t on the budget's axis, L linear between evaluations

L is the validation loss. τ is the budget, or the earliest end of runs that ended before it, at
their target: the last point up to which every run was observed. A diverged run counts as its
initial loss in all three; missing data have none. Where the last evaluation is not finite there is
no final loss; the others skip values that are not finite.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from bdhf.records import AXES, LOSSES, Budget, Status
from bdhf.stats.observations.targets import OUTCOMES

#: The metric of all three.
METRIC = "val_loss"


def losses(runs: pd.DataFrame, curves: pd.DataFrame, estimand: str, budget: Budget) -> pd.DataFrame:
    """Give every planned run its loss, in the columns of `restriction.restrict`.

    `runs` are those of the compared arms, with the budget that they share. `cost` is the loss, NaN
    where data are missing; `hit`: the run did not diverge; `time` is where its curve ends, in units
    of the budget's axis. An extra column `start` is the initial loss.

    Raises ValueError for an estimand that is no loss.

    >>> runs = pd.DataFrame({"arm": "hf", "seed": [0, 1], "run_id": ["a", "b"],
    ...                      "status": ["done", "diverged"]})
    >>> curves = pd.DataFrame({"arm": "hf", "seed": [0, 0, 0, 1, 1], "update": [0, 2, 4, 0, 2],
    ...                        "val_loss": [1.0, 0.2, 0.4, 2.0, np.nan]})
    >>> losses(runs, curves, "best_loss", Budget(updates=4))["cost"].tolist()
    [0.2, 2.0]
    """
    if estimand not in LOSSES:
        raise ValueError(f"estimand: {estimand!r} is not a loss; known: {', '.join(LOSSES)}")
    column = AXES[budget.axis][0]
    curve_of = _curves(runs, curves, column)
    ends = {key: x[-1] for key, (x, _) in curve_of.items()}
    status = {
        key: status
        for key, status in zip(_keys(runs), runs["status"], strict=True)
        if status in OUTCOMES
    }
    observed = [ends[k] for k, s in status.items() if k in ends and s != Status.DIVERGED.value]
    tau = min([budget.limit, *observed])
    costs = [
        _loss(*curve_of[key], estimand, tau, diverged=status[key] == Status.DIVERGED.value)
        if key in curve_of and key in status
        else np.nan
        for key in _keys(runs)
    ]
    return runs[["arm", "seed", "run_id", "status"]].assign(
        time=[ends.get(key, np.nan) for key in _keys(runs)],
        cost=np.array(costs, dtype=float),
        start=[curve_of[key][1][0] if key in curve_of else np.nan for key in _keys(runs)],
        hit=(runs["status"] == Status.DONE.value).to_numpy(),
    )


_Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def _keys(runs: pd.DataFrame) -> list[Hashable]:
    return list(zip(runs["arm"], runs["seed"], strict=True))


def _curves(runs: pd.DataFrame, curves: pd.DataFrame, column: str) -> dict[Hashable, _Curve]:
    """Position on the axis and loss of every evaluation of these runs that has one."""
    needed = dict.fromkeys(["arm", "seed", "update", column, METRIC])
    of_arms = curves[curves["arm"].isin(runs["arm"].unique())] if len(curves) else curves
    located = of_arms.reindex(columns=list(needed)).dropna(subset=[column])
    ordered = located.sort_values("update", kind="stable")
    return {
        key: (
            curve[column].to_numpy(dtype=float),
            curve[METRIC].to_numpy(dtype=float, na_value=np.nan),
        )
        for key, curve in ordered.groupby(["arm", "seed"], sort=False)
    }


def _loss(
    x: NDArray[np.float64], loss: NDArray[np.float64], estimand: str, tau: float, *, diverged: bool
) -> float:
    if diverged or not len(x):
        return float(loss[0]) if len(x) else np.nan
    finite = np.isfinite(loss)
    if estimand == "final_loss":
        return float(loss[-1]) if finite[-1] else np.nan
    x, loss = x[finite], loss[finite]
    if not len(x):
        return np.nan
    if estimand == "best_loss":
        return float(loss.min())
    inside = x < tau
    grid = np.append(x[inside], tau)
    return (
        float(trapezoid(np.interp(grid, x, loss), grid) / (tau - grid[0]))
        if (tau > grid[0])
        else float(loss[0])
    )

"""From learning curves to censored observations: when each run reached the target, if it did.

A run reaches `metric ≤ below` at the first evaluation of the first stretch of `sustain` evaluations
in a row at or below the value:

    U = cost(i),   i = min { i : metric(i), ..., metric(i + sustain - 1) ≤ below }

NaN is not at or below anything, so it never hits and it breaks a stretch. A stretch that the end of
the run cuts short does not count. A run without a hit is censored at its follow-up, the cost that
it had run up at its end. A diverged run is a miss, whatever it reached before; a run that failed or
has not run yet is missing data, without an outcome.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bdhf.records import AXES, MISSING, Status, Target

#: Statuses that are an outcome: the run hit the target or missed it.
OUTCOMES = tuple(status.value for status in Status if status not in MISSING)

#: Columns of a curve that say where a run stands, not how good it is.
_NOT_METRICS = {"arm", "seed", "run_id", "samples", *(column for column, _ in AXES.values())}


def observe(
    runs: pd.DataFrame, curves: pd.DataFrame, target: Target, axis: str = "updates"
) -> pd.DataFrame:
    """Say of every planned run whether it reached the target, and what that cost.

    Takes the tables of `bdhf.records.Records`. Returns `arm, seed, run_id, status, reached, time`:
    `time`, in units of the axis, is the cost of the hit or, for a miss, the follow-up (the run's
    total, or its last evaluation where no total is recorded); NaN where data are missing.

    Raises ValueError for a metric that the curves do not have and for an axis that does not exist.

    >>> runs = pd.DataFrame({"arm": ["hf", "hf"], "seed": [0, 1], "run_id": ["a", "b"],
    ...                      "status": ["done", "done"], "update": [4, 4]})
    >>> curves = pd.DataFrame({"arm": "hf", "seed": [0, 0, 0, 1, 1, 1], "update": [0, 2, 4] * 2,
    ...                        "val_loss": [1.0, 0.1, 0.2, 1.0, 0.9, 0.8]})
    >>> target = Target(metric="val_loss", below=0.2)
    >>> observe(runs, curves, target)[["seed", "reached", "time"]]
       seed  reached  time
    0     0     True   2.0
    1     1    False   4.0
    """
    column = axis_column(axis)
    if not curves.empty:
        _check_metric(target.metric, curves)
    measured = _measure(curves, target, column)
    no_curve = (False, np.nan, np.nan)
    rows = [measured.get(key, no_curve) for key in zip(runs["arm"], runs["seed"], strict=True)]
    curve = pd.DataFrame(rows, index=runs.index, columns=["hit", "cost", "last"])
    curve = curve.astype({"hit": bool, "cost": float, "last": float})
    total = runs.reindex(columns=[column])[column].astype(float)
    status = runs["status"]
    reached = curve["hit"] & (status == Status.DONE.value)
    time = curve["cost"].where(reached, total.fillna(curve["last"])).where(status.isin(OUTCOMES))
    return runs[["arm", "seed", "run_id", "status"]].assign(reached=reached, time=time)


def axis_column(axis: str) -> str:
    """Name the column of a curve that counts the axis; ValueError for an unknown axis."""
    if axis not in AXES:
        raise ValueError(f"axis: unknown {axis!r}; known: {', '.join(AXES)}")
    return AXES[axis][0]


def first_hit(below: NDArray[np.bool_], sustain: int = 1) -> int | None:
    """Find the first position that opens a stretch of `sustain` true values, or None.

    >>> first_hit(np.array([False, True, False, True, True]), sustain=2)
    3
    """
    if below.size < sustain:
        return None
    stretches = np.lib.stride_tricks.sliding_window_view(below, sustain).all(axis=1)
    return int(stretches.argmax()) if stretches.any() else None


def _measure(
    curves: pd.DataFrame, target: Target, column: str
) -> dict[Hashable, tuple[bool, float, float]]:
    """Say per run with a curve if it hits, at what cost, and the cost of its last evaluation."""
    needed = dict.fromkeys(["arm", "seed", "update", column, target.metric])
    ordered = curves.reindex(columns=list(needed)).sort_values("update", kind="stable")
    measured: dict[Hashable, tuple[bool, float, float]] = {}
    for run, curve in ordered.groupby(["arm", "seed"], sort=False):
        metric = curve[target.metric].to_numpy(dtype=float, na_value=np.nan)
        cost = curve[column].to_numpy(dtype=float, na_value=np.nan)
        hit = first_hit(metric <= target.below, target.sustain)
        measured[run] = (hit is not None, np.nan if hit is None else cost[hit], cost[-1])
    return measured


def _check_metric(metric: str, curves: pd.DataFrame) -> None:
    known = [str(column) for column in curves.columns if column not in _NOT_METRICS]
    if metric not in known:
        near = difflib.get_close_matches(metric, known, n=1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"targets: the curves have no metric {metric!r}; known: {', '.join(known)}{hint}"
        )

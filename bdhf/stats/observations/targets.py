"""From learning curves to censored observations: when each run reached the target, if it did.

A run reaches `metric ≤ below` at the first evaluation of the first stretch of `sustain` evaluations
in a row at or below the value, and `metric ≥ above` at or above it likewise:

    U = cost(i),   i = min { i : metric(i), ..., metric(i + sustain - 1) ≤ below }

NaN never hits, and it breaks a stretch. A stretch that is incomplete at the end of the run does not
count. A run without a hit is censored at its follow-up, its cost at its end. A diverged run is a
miss, even after a hit. A run that failed after a hit is a hit; one that failed before, or has not
run yet, is missing data.

The cost of a hit is known to one evaluation interval: the target was reached at least one update
after the evaluation before the hit. `earliest` is the cost of that update.
"""

from __future__ import annotations

import difflib

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bdhf.records import AXES, MISSING, InputError, Status, Target

#: Statuses that are an outcome: the run hit the target or missed it.
OUTCOMES = tuple(status.value for status in Status if status not in MISSING)

#: Columns of a curve that measure progress, not quality.
_NOT_METRICS = {"arm", "seed", "run_id", "samples", *(column for column, _ in AXES.values())}


class MetricError(InputError, ValueError):
    """A target whose metric no run of the ablation has measured."""


def observe_targets(
    runs: pd.DataFrame, curves: pd.DataFrame, target: Target, axis: str = "updates"
) -> pd.DataFrame:
    """Observe for every planned run whether it reached the target, and at what cost.

    Takes the tables of `bdhf.records.Records`. Returns `arm, seed, run_id, status, reached, time,
    earliest, spent`, costs in units of the axis: `time` is the cost of the hit or, for a miss, the
    follow-up (the run's total, or its last evaluation where no total is recorded), NaN where data
    are missing; `earliest` is the smallest possible cost of the hit, and `time` for a miss; `spent`
    is the run's total, however it ended.

    Raises ValueError for a metric that the curves do not have and for an axis that does not exist.

    >>> runs = pd.DataFrame({"arm": ["hf", "hf"], "seed": [0, 1], "run_id": ["a", "b"],
    ...                      "status": ["done", "done"], "update": [4, 4]})
    >>> curves = pd.DataFrame({"arm": "hf", "seed": [0, 0, 0, 1, 1, 1], "update": [0, 2, 4] * 2,
    ...                        "val_loss": [1.0, 0.1, 0.2, 1.0, 0.9, 0.8]})
    >>> target = Target(metric="val_loss", below=0.2)
    >>> observe_targets(runs, curves, target)[["seed", "reached", "time"]]
       seed  reached  time
    0     0     True   2.0
    1     1    False   4.0
    """
    column = axis_column(axis)
    if not curves.empty:
        _check_metric(target.metric, curves)
    curve = _measure(runs, curves, target, column)
    status = runs["status"]
    reached = curve["hit"] & status.isin([Status.DONE.value, *MISSING])
    total = spent_at_end(runs, curves, axis)
    time = curve["cost"].where(reached, total.where(status.isin(OUTCOMES)))
    return runs[["arm", "seed", "run_id", "status"]].assign(
        reached=reached, time=time, earliest=curve["earliest"].where(reached, time), spent=total
    )


def spent_at_end(runs: pd.DataFrame, curves: pd.DataFrame, axis: str) -> pd.Series[float]:
    """The cost of every run at its end, by the rows of `runs`; NaN where it is not recorded.

    It is the run's total, or the cost of its last evaluation where there is none.
    """
    column = axis_column(axis)
    total = runs.reindex(columns=[column])[column].astype(float)
    needed = _of_arms(runs, curves).reindex(columns=["arm", "seed", column])
    last = needed[column].astype(float).groupby([needed["arm"], needed["seed"]]).max()
    keys = pd.MultiIndex.from_frame(runs[["arm", "seed"]])
    return total.fillna(pd.Series(last.reindex(keys).to_numpy(dtype=float), runs.index))


def axis_column(axis: str) -> str:
    """Name the column of a curve that counts the axis; ValueError for an unknown axis."""
    if axis not in AXES:
        raise ValueError(f"axis: unknown {axis!r}; known: {', '.join(AXES)}")
    return AXES[axis][0]


def hits(below: NDArray[np.bool_], sustain: int = 1) -> NDArray[np.bool_]:
    """Whether a stretch of `sustain` true values begins at each position.

    >>> hits(np.array([False, True, False, True, True]), sustain=2).tolist()
    [False, False, False, True, False]
    """
    begins = np.zeros(below.size, dtype=bool)
    if below.size >= sustain:
        stretches = np.lib.stride_tricks.sliding_window_view(below, sustain)
        begins[: len(stretches)] = stretches.all(axis=1)
    return begins


def _measure(runs: pd.DataFrame, curves: pd.DataFrame, target: Target, column: str) -> pd.DataFrame:
    """Whether each run hits, at what cost, and the smallest possible cost.

    All runs at once, in sorted rows; a stretch must not extend into the next run.
    """
    keys = pd.MultiIndex.from_frame(runs[["arm", "seed"]])
    cells = keys.unique()
    needed = dict.fromkeys(["arm", "seed", "update", column, target.metric])
    ordered = _of_arms(runs, curves).reindex(columns=list(needed))
    cell = cells.get_indexer(pd.MultiIndex.from_frame(ordered[["arm", "seed"]]))
    update = ordered["update"].to_numpy(dtype=float, na_value=np.nan)
    order = np.lexsort((update, cell))
    order = order[cell[order] >= 0]
    run = cell[order]
    metric = ordered[target.metric].to_numpy(dtype=float, na_value=np.nan)[order]
    cost = ordered[column].to_numpy(dtype=float, na_value=np.nan)[order]
    hit = hits(target.met(metric), target.sustain)
    ends = np.minimum(np.arange(len(run)) + target.sustain - 1, max(len(run) - 1, 0))
    hit &= run[ends] == run
    at, first = np.unique(run[hit], return_index=True)
    rows = np.flatnonzero(hit)[first]
    measured = pd.DataFrame(
        {"hit": np.zeros(len(cells), dtype=bool), "cost": np.nan, "earliest": np.nan}
    )
    measured.loc[at, "hit"], measured.loc[at, "cost"] = True, cost[rows]
    measured.loc[at, "earliest"] = _earliest(rows, run, update[order], cost)
    return measured.iloc[cells.get_indexer(keys)].set_index(runs.index)


def _of_arms(runs: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    return curves[curves["arm"].isin(runs["arm"].unique())] if len(curves) else curves


def _earliest(
    rows: NDArray[np.intp],
    run: NDArray[np.intp],
    update: NDArray[np.float64],
    cost: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The cost one update after the evaluation before each of these rows.

    Updates between two evaluations cost the same; a run starts before its first evaluation.
    """
    before = np.maximum(rows - 1, 0)
    has_before = (rows > 0) & (run[before] == run[rows]) & np.isfinite(cost[before])
    start = np.where(has_before, cost[before], 0.0)
    updates = update[rows] - np.where(has_before, update[before], 0.0)
    share = (cost[rows] - start) / np.maximum(updates, 1.0)
    return np.asarray(np.where(updates > 1, start + share, cost[rows]))


def _check_metric(metric: str, curves: pd.DataFrame) -> None:
    metrics = [str(column) for column in curves.columns if column not in _NOT_METRICS]
    if metric not in metrics:
        near = difflib.get_close_matches(metric, metrics, n=1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        fault = f"targets: the curves have no metric {metric!r}; known: {', '.join(metrics)}{hint}"
        raise MetricError([fault])

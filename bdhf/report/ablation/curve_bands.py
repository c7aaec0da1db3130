"""Median and quartiles of a curve over seeds, where some runs end before the others.

At a position x of an axis, every run with an outcome has a value, linear between its evaluations.
A quantile is the k-th smallest of n such values, k = ⌈q n⌉: always the value of one run, never an
average of two. The rank of a run that has ended depends on how it ended:

  at its target   it ranks below every run that still trains. While fewer than half have stopped,
                  the median is the value of a run that still trains. It equals the median without
                  stopping, unless a stopped run would have risen above the target again. The line
                  ends where half of the runs have stopped: the Kaplan-Meier median time to target.
                  The lower edge of the band uses the last losses of stopped runs and is therefore
                  an upper bound.
  diverged        it ranks above every other run from then on. The line ends once more than half
                  have diverged.
  at the budget   its value beyond is unknown. The line ends at the first such end: on the axis of
                  the budget that is the budget, on another axis the shortest follow-up.

Where a metric is better the larger it is (a target `above`), the order is reversed.

Runs without an outcome (error, timeout, not run yet ...) are not drawn; captions count them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bdhf.records import AXES, Records, Status
from bdhf.stats.observations.targets import OUTCOMES, observe_targets

#: Why a line ends, in the column `end` of its last row.
AT_TARGET, AT_BUDGET, DIVERGED = "target", "budget", "diverged"
_COLUMNS = ("metric", "arm", "runs", "x", "low", "median", "high", "end")

Positions = NDArray[np.float64]
_POSITIONS = 160  # points of a line at most: more cannot be seen


@dataclass(frozen=True)
class _Run:
    """The values of a run along an axis, and where and how it ended."""

    x: Positions  # (evaluations,), increasing
    value: Positions  # (evaluations,), inf where a diverged run's loss is not a number
    last: float
    end: str

    def at(self, grid: Positions) -> Positions:
        """The value at every position, linear between evaluations; inf once diverged."""
        finite = np.isfinite(self.value)
        if not finite.any():
            return np.full(len(grid), np.inf)
        values = np.interp(grid, self.x[finite], self.value[finite])
        lost = min([self.last, *self.x[~finite]])
        gone = (grid > self.last) | ((grid >= lost) & (not finite.all()))
        return np.where(gone & (self.end == DIVERGED), np.inf, values)


def bands(records: Records, axis: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Quartiles over seeds of every arm: one row per metric, arm and position.

    Columns: `metric, arm`; `runs`, the number of runs; `x` in units of the axis; `low, median,
    high`, the quartiles (infinite where a quarter, half ... of the runs diverged); `end`, why the
    line ends (`target`, `budget` or `diverged`) on its last row, otherwise empty.
    """
    through = _through(records)
    column = AXES[axis][0]
    curves = {arm: _curves(records, arm, column) for arm in records.arms}
    upward = {target.metric for target in records.targets if target.is_upward}
    parts = []
    for metric in [metric for metric in metrics if metric in records.curves]:
        for arm in records.arms:
            runs = [_run(records, curve, column, metric, through) for curve in curves[arm]]
            runs = [run for run in runs if len(run.x)]
            band = _upside_down if metric in upward else _band
            parts += [band(runs).assign(metric=metric, arm=arm)] if runs else []
    return pd.concat(parts, ignore_index=True)[list(_COLUMNS)] if parts else _empty()


def quartiles(values: Positions) -> Positions:
    """Low, median and high over the first axis, each the k-th smallest value, k = ⌈q n⌉.

    >>> quartiles(np.array([5.0, 1.0, np.inf, 2.0]))
    array([1., 2., 5.])
    """
    ranks = [ceil(q * len(values)) - 1 for q in (0.25, 0.5, 0.75)]
    return np.asarray(np.sort(values, axis=0)[ranks], dtype=float)


def _empty() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=object) for name in _COLUMNS})


def _through(records: Records) -> set[tuple[str, int]]:
    """The cells (arm, seed) whose run reached every target; none without a target."""
    cells: list[set[tuple[str, int]]] = []
    for target in records.targets:
        seen = observe_targets(records.runs, records.curves, target)
        seen = seen[seen["reached"]]
        cells.append(set(zip(seen["arm"], seen["seed"], strict=True)))
    return set.intersection(*cells) if cells else set()


@dataclass(frozen=True)
class _Curve:
    """The evaluations of a run, in order."""

    cell: tuple[str, int]
    status: str
    table: pd.DataFrame


def _curves(records: Records, arm: str, column: str) -> list[_Curve]:
    """The curve of every run of an arm with an outcome and with values on the axis."""
    runs = records.runs[(records.runs["arm"] == arm) & records.runs["status"].isin(OUTCOMES)]
    needed = [*records.curves.columns, column, AXES[records.budget.axis][0]]
    rows = records.curves[records.curves["arm"] == arm]
    curves = rows.reindex(columns=list(dict.fromkeys(needed)))
    seeds: dict[Any, pd.DataFrame] = dict(list(curves.dropna(subset=[column]).groupby("seed")))
    return [
        _Curve((arm, seed), status, seeds[seed].sort_values("update", kind="stable"))
        for seed, status in zip(runs["seed"], runs["status"], strict=True)
        if seed in seeds
    ]


def _run(
    records: Records, curve: _Curve, column: str, metric: str, through: set[tuple[str, int]]
) -> _Run:
    """The run of a curve; an evaluation that did not measure the metric is left out."""
    value = curve.table[metric].to_numpy(float, na_value=np.nan)
    x = np.maximum.accumulate(curve.table[column].to_numpy(float))
    spent = float(curve.table[AXES[records.budget.axis][0]].iloc[-1])
    limit = records.budget_of(curve.cell[0]).limit
    end = AT_TARGET if curve.cell in through and spent < limit else AT_BUDGET
    if curve.status == Status.DIVERGED:
        value, end = np.where(np.isfinite(value), value, np.inf), DIVERGED
    measured = ~np.isnan(value)
    return _Run(x[measured], value[measured], float(x[-1]), end)


def _band(runs: list[_Run]) -> pd.DataFrame:
    """The quartiles of an arm at positions that suit its runs, as far as they are determined."""
    stop, why = _stop(runs)
    grid = _grid(runs, stop)
    values = np.array([run.at(grid) for run in runs])  # (runs, positions)
    through = np.array([(grid > run.last) & (run.end == AT_TARGET) for run in runs])
    low, median, high = quartiles(np.where(through, -np.inf, values))
    low = np.where(np.isneginf(low), quartiles(values)[0], low)
    is_finite = np.isfinite(median)
    columns = {"x": grid, "low": low, "median": median, "high": high}
    table = pd.DataFrame({name: column[is_finite] for name, column in columns.items()})
    table = table.assign(runs=len(runs), end="")
    table.loc[table.index[-1:], "end"] = why if is_finite.all() else DIVERGED
    return table


def _upside_down(runs: list[_Run]) -> pd.DataFrame:
    """The quartiles where larger is better: those of the negated values; a diverged run is -∞."""
    table = _band(
        [replace(run, value=np.where(np.isfinite(run.value), -run.value, np.inf)) for run in runs]
    )
    return table.assign(low=-table["high"], median=-table["median"], high=-table["low"])


def _stop(runs: list[_Run]) -> tuple[float, str]:
    """Where the median of these runs ceases to be determined, and why."""
    enough = {AT_TARGET: ceil(len(runs) / 2), AT_BUDGET: 1, DIVERGED: len(runs) // 2 + 1}
    ends = {why: sorted(run.last for run in runs if run.end == why) for why in enough}
    return min((ends[why][n - 1], why) for why, n in enough.items() if len(ends[why]) >= n)


def _grid(runs: list[_Run], stop: float) -> Positions:
    """Positions of evaluations, from where all runs have begun, thinned evenly."""
    begin = min(max(run.x[0] for run in runs), stop)
    seen = np.unique(np.concatenate([run.x for run in runs]))
    seen = seen[(seen >= begin) & (seen <= stop)]
    points = min(len(seen), _POSITIONS)
    chosen = np.linspace(0, len(seen) - 1, points).round().astype(int)
    return np.asarray(seen[chosen], dtype=float)

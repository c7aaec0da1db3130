"""Costs and losses of runs at an evaluation, and their spread over the seeds of an arm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from bdhf.records import Records
from bdhf.report.ablation.curve_bands import quartiles
from bdhf.text.formatting import NONE, number

#: A median, and its two quartiles, as text.
Spread = tuple[str, str]


def evaluations(records: Records) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The first and the last evaluation of every run, by arm and seed."""
    ordered = records.curves.sort_values("update", kind="stable")
    runs = ordered.groupby(["arm", "seed"], sort=False)
    return runs.head(1).set_index(["arm", "seed"]), runs.tail(1).set_index(["arm", "seed"])


def at(evaluation: pd.DataFrame, cells: pd.DataFrame, column: str) -> pd.Series[float]:
    """A column of each cell's evaluation, NaN for a cell without one."""
    keys = pd.MultiIndex.from_frame(cells[["arm", "seed"]])
    values = evaluation.reindex(columns=[column])[column].reindex(keys)
    return pd.Series(values.to_numpy(float, na_value=np.nan), index=cells.index)


def total(last: pd.DataFrame, cells: pd.DataFrame, column: str) -> pd.Series[float]:
    """The total of each cell; if not recorded, the value at its last evaluation."""
    recorded = cells.reindex(columns=[column])[column].astype(float)
    return recorded.fillna(at(last, cells, column))


def spread_in_words(values: Sequence[float], write: Callable[[float], str] = number) -> Spread:
    """Median and quartiles of the values that are not NaN, as text.

    >>> spread_in_words([3.0, 1.0, float("nan"), 2.0])
    ('2.00', '1.00 to 3.00')
    """
    recorded = [value for value in values if not np.isnan(value)]
    if not recorded:
        return NONE, ""
    low, median, high = quartiles(np.array(recorded))
    return write(median), f"{write(low)} to {write(high)}"

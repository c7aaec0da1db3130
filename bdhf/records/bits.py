"""Whether two curves are the same, bit for bit, and where they first are not."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd


class Unlike(NamedTuple):
    """The first value that differs: in which row (from 0) and column, and what stands there."""

    row: int
    column: str
    one: float
    other: float


def first_unlike(
    one: pd.DataFrame, other: pd.DataFrame, ignored: Collection[str] = ()
) -> Unlike | None:
    """Find the first row in which two curves differ, over as many rows as both have.

    NaN equals NaN, and is what stands in a column that a curve does not have; 0.0 and -0.0 differ.
    """
    rows = min(len(one), len(other))
    found: list[Unlike] = []
    for name in dict.fromkeys([*one.columns, *other.columns]):
        if name in ignored:
            continue
        left, right = _values(one, name, rows), _values(other, name, rows)
        same = (left.view(np.int64) == right.view(np.int64)) | (np.isnan(left) & np.isnan(right))
        if not same.all():
            row = int(np.argmin(same))
            found.append(Unlike(row, name, float(left[row]), float(right[row])))
    return min(found, key=lambda unlike: unlike.row, default=None)


def _values(curve: pd.DataFrame, name: str, rows: int) -> np.ndarray:
    if name not in curve:
        return np.full(rows, np.nan)
    return np.array(curve[name].iloc[:rows].to_numpy(float, na_value=np.nan))

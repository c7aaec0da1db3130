"""Whether two curves are equal, bit for bit, and where they first differ."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd


class Unlike(NamedTuple):
    """The first difference: its row (from 0), its column and both values."""

    row: int
    column: str
    first: float
    other: float


def first_unlike(
    first: pd.DataFrame, other: pd.DataFrame, ignored: Collection[str] = ()
) -> Unlike | None:
    """Find the first row in which two curves differ, over as many rows as both have.

    NaN equals NaN, and fills a column that a curve lacks; 0.0 and -0.0 differ.
    """
    rows = min(len(first), len(other))
    differences: list[Unlike] = []
    for name in dict.fromkeys([*first.columns, *other.columns]):
        if name in ignored:
            continue
        a, b = _values(first, name, rows), _values(other, name, rows)
        same = (a.view(np.int64) == b.view(np.int64)) | (np.isnan(a) & np.isnan(b))
        if not same.all():
            row = int(np.argmin(same))
            differences.append(Unlike(row, name, float(a[row]), float(b[row])))
    return min(differences, key=lambda unlike: unlike.row, default=None)


def _values(curve: pd.DataFrame, name: str, rows: int) -> np.ndarray:
    if name not in curve:
        return np.full(rows, np.nan)
    return np.array(curve[name].iloc[:rows].to_numpy(float, na_value=np.nan))

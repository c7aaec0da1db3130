"""Arms that spend nothing on an axis, as Adam computes no curvature products.

Their cost is always 0, so its ratio is uninformative. An arm that made no update spent nothing
either, but would have: `untrained` covers that case.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bdhf.records import AXES, Records


def most_spent(records: Records, axis: str) -> pd.Series[float]:
    """The largest cost of any run on an axis, by arm; no entry where none was recorded."""
    column = AXES[axis][0]
    if column not in records.curves:
        return pd.Series(dtype=float)
    return records.curves.groupby("arm")[column].max().dropna().astype(float)


def idle_arms(records: Records, arms: Sequence[str], axis: str) -> tuple[str, ...]:
    """The arms that made updates and spent nothing on an axis."""
    most, updates = most_spent(records, axis), most_spent(records, "updates")
    return tuple(arm for arm in arms if most.get(arm) == 0 and updates.get(arm, 0.0) > 0)

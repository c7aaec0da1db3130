"""Arms that spend nothing on an axis, as Adam makes no curvature products.

Their cost is 0 whatever they are worth, so that a ratio of it says nothing of them. An arm that
made no update spent nothing either, but could have: `untrained` tells of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bdhf.records import AXES, Records


def most_spent(records: Records, axis: str) -> pd.Series[float]:
    """The most that a run of every arm spent on an axis; no entry where none recorded it."""
    column = AXES[axis][0]
    if column not in records.curves:
        return pd.Series(dtype=float)
    return records.curves.groupby("arm")[column].max().dropna().astype(float)


def idle_arms(records: Records, arms: Sequence[str], axis: str) -> tuple[str, ...]:
    """Those of the arms that made updates and spent nothing on an axis."""
    most, updates = most_spent(records, axis), most_spent(records, "updates")
    return tuple(arm for arm in arms if most.get(arm) == 0 and updates.get(arm, 0.0) > 0)

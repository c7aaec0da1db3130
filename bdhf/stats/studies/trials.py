"""Values of the trials of a study, one arm at a time, in the order of the trials.

    value   of a trial: its mean cost over the tuning seeds; at the arm's horizon it is a miss
    best    of the trials so far: the smallest of their values; its trial is the incumbent

A pruned or failed trial counts as a miss. A loss has no horizon: such trials count as the worst
trial of the study with status `done`.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bdhf.records import StudyRecords, TunedArm

DONE, PRUNED = "done", "pruned"

_SO_FAR = ("trial", "value", "best", "incumbent", "low", "high")


def trials_of(records: StudyRecords, label: str) -> pd.DataFrame:
    """The rows of one arm, by trial."""
    trials = records.trials[records.trials["arm"] == label]
    return trials.sort_values("trial", kind="stable").reset_index(drop=True)


def miss_value_of(records: StudyRecords, arm: TunedArm, objective: str) -> float:
    """The value of a miss; NaN for a loss without a trial that was done."""
    if objective in arm.horizons:
        return float(arm.horizons[objective])
    done = records.trials.loc[records.trials["status"] == DONE, objective].to_numpy(float)
    done = done[np.isfinite(done)]
    return float(done.max()) if len(done) else math.nan


def trial_values(
    records: StudyRecords, arm: TunedArm, objective: str, horizon: float | None = None
) -> NDArray[np.float64]:
    """The values of an arm's trials (trials,), with misses at the horizon.

    `horizon`: that of another arm, where it is smaller.
    """
    end = miss_value_of(records, arm, objective) if horizon is None else horizon
    table = trials_of(records, arm.label)
    values = table[objective].to_numpy(float)
    has_value = (table["status"] == DONE).to_numpy() & np.isfinite(values)
    return np.minimum(np.where(has_value, values, end), end)


def best_so_far(records: StudyRecords, arm: TunedArm, objective: str) -> pd.DataFrame:
    """The best of the first k trials, with the least and largest cost of its runs.

    Columns: `trial, value` (as in the records), `best, incumbent` (its trial), `low, high` (over
    the tuning seeds of the incumbent); NaN before any trial has a value.
    """
    table = trials_of(records, arm.label)
    runs = records.seeds[records.seeds["arm"] == arm.label]
    ends = runs.groupby("trial")[objective].agg(["min", "max"])
    rows, best, incumbent = [], math.nan, math.nan
    for trial, value in zip(table["trial"], table[objective].astype(float), strict=True):
        if math.isfinite(value) and not value >= best:
            best, incumbent = value, trial
        low, high = ends.loc[incumbent] if incumbent in ends.index else (math.nan, math.nan)
        rows.append((trial, value, best, incumbent, low, high))
    return pd.DataFrame(rows, columns=list(_SO_FAR))

"""Kaplan-Meier: the share of runs of each arm that have not reached the target yet.

    S(t) = Π_{t_i ≤ t} (1 - d_i / n_i)

with d_i runs that hit at cost t_i and n_i runs still at risk there, that is, neither hit nor ended
before t_i (Kaplan and Meier, 1958). The estimate is scipy's; this module decides which runs are at
risk. The area under S up to τ is the restricted mean of `restriction.py`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import CensoredData, ecdf

from bdhf.records import Status

_COLUMNS = ("arm", "time", "surviving", "at_risk", "hits", "censored")


def kaplan_meier(observed: pd.DataFrame, *, end: float | None = None) -> pd.DataFrame:
    """Estimate the survival curve of every arm, as steps that hold until the next row.

    `observed` comes from `targets.observe_targets`; runs without an outcome are left out. A
    diverged run can never reach the target and stays at risk until `end`, in units of the axis: the
    budget on its own axis, by default the largest time. The curve ends at `end`.

    Returns `arm, time, surviving, at_risk, hits, censored`: a first row per arm at time 0 with
    all runs at risk, then a row per time at which a run hits or is censored; `at_risk` counts the
    runs just before `time`, including the hits and censored runs of this row.

    >>> observed = pd.DataFrame({"arm": "hf", "status": "done", "reached": [True, True, False],
    ...                          "time": [2.0, 4.0, 4.0]})
    >>> kaplan_meier(observed)[["time", "surviving", "at_risk"]].round(3)
       time  surviving  at_risk
    0   0.0      1.000        3
    1   2.0      0.667        3
    2   4.0      0.333        2
    """
    outcomes = observed[observed["time"].notna() | (observed["status"] == Status.DIVERGED.value)]
    end = float(outcomes["time"].max()) if end is None else end
    if outcomes.empty or np.isnan(end):
        return pd.DataFrame(columns=list(_COLUMNS))
    arms = outcomes.groupby("arm", sort=False)
    curves = [_arm_curve(runs, end).assign(arm=arm) for arm, runs in arms]
    return pd.concat(curves, ignore_index=True)[list(_COLUMNS)]


def _arm_curve(runs: pd.DataFrame, end: float) -> pd.DataFrame:
    """Compute the steps of one arm; at equal times hits come before censorings."""
    diverged = runs["status"] == Status.DIVERGED.value
    time = runs["time"].where(~diverged, end).clip(upper=end).to_numpy(dtype=float)
    hit = (runs["reached"] & (runs["time"] <= end)).to_numpy(dtype=bool)
    survival = ecdf(CensoredData(uncensored=time[hit], right=time[~hit])).sf
    steps = np.asarray(survival.quantiles, dtype=float)
    return pd.DataFrame(
        {
            "time": np.concatenate([[0.0], steps]),
            "surviving": np.concatenate([[1.0], survival.probabilities]),
            "at_risk": [len(time), *(int((time >= step).sum()) for step in steps)],
            "hits": [0, *(int((time[hit] == step).sum()) for step in steps)],
            "censored": [0, *(int((time[~hit] == step).sum()) for step in steps)],
        }
    )

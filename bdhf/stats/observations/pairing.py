"""From the records of an ablation to the pairs of two of its arms, seed by seed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bdhf.records import AXES, Comparison, Records, Target, uncounted
from bdhf.stats.observations.cost_bounds import restricted, with_ends
from bdhf.stats.observations.hardware import masked, on_one_hardware
from bdhf.stats.observations.idle import idle_arms
from bdhf.stats.observations.losses import losses
from bdhf.stats.observations.pairs import Pairs
from bdhf.stats.observations.restriction import Horizon, smallest_cost

_COLUMNS = ["run_id", "status", "time", "cost", "earliest", "spent", "slowest", "hit", "note"]


def pair(records: Records, entry: Comparison, target: Target | None) -> Pairs:
    """Pair the runs of the two arms of an entry by seed; a loss needs no target.

    Costs are restricted to the horizon that both share. A planned pair is a seed that the plan has
    for both arms, with a run for each. Seconds of runs on different hardware do not form a pair.

    Raises ValueError when an arm has two runs of one seed, and when a cost has no target.
    """
    sides = entry.candidate, entry.baseline
    runs = records.runs[records.runs["arm"].isin(sides)]
    budget = records.budget_of(*sides)
    timeout = 0.0
    if not entry.is_to_target:
        table = losses(runs, records.curves, entry.estimand, budget)
        table = table.assign(earliest=table["cost"], spent=np.nan, slowest=np.nan)
        limit, floor = Horizon(np.nan, "loss"), 0.0
        worst = float(table["start"].where(np.isfinite(table["start"])).max())
    elif target is None:
        raise ValueError(f"compare: {entry.estimand} of {entry.name!r} needs a target")
    else:
        table, limit = restricted(runs, records.curves, target, entry.axis, budget)
        floor, worst = smallest_cost(table, records.curves, entry.axis), limit.value
        if entry.axis == "seconds":
            timeout = records.safety_seconds
    table = table.assign(note=runs["reason"].map(uncounted).where(runs["status"].isna(), ""))
    left, right = (_by_seed(table, arm) for arm in sides)
    seeds = left.index.intersection(right.index).sort_values()
    seeds = seeds[(left.loc[seeds, "run_id"] != right.loc[seeds, "run_id"]).to_numpy(dtype=bool)]
    paired = left.loc[seeds], right.loc[seeds]
    if entry.is_to_target:
        paired = _without_idle(*paired, entry, records)
        if entry.axis == "seconds":
            paired = on_one_hardware(*paired, records.environments)
    both = with_ends(pd.concat(paired), limit, worst=worst, timeout=timeout)
    return Pairs(both.iloc[: len(seeds)], both.iloc[len(seeds) :], limit, floor)


def _by_seed(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    runs = table[table["arm"] == arm].set_index("seed")
    if runs.index.has_duplicates:
        seed = runs.index[runs.index.duplicated()][0]
        raise ValueError(f"runs: arm {arm!r} has more than one run of seed {seed}")
    return runs[_COLUMNS]


def _without_idle(
    candidate: pd.DataFrame, baseline: pd.DataFrame, entry: Comparison, records: Records
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mask the costs of an arm that spends nothing on the axis: they are uninformative."""
    unspent = idle_arms(records, (entry.candidate, entry.baseline), entry.axis)
    note = f"that spent no {AXES[entry.axis][1]}"
    if entry.candidate in unspent:
        candidate = masked(candidate, candidate["cost"].notna(), note)
    if entry.baseline in unspent:
        baseline = masked(baseline, baseline["cost"].notna(), note)
    return candidate, baseline

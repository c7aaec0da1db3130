"""Two arms on the same seeds: one pair of values per seed.

    l_i = log(Y_candidate,i / Y_baseline,i)        d_i = Y_candidate,i - Y_baseline,i

Y is a restricted cost or a loss. Seeds pair arms because initialisation and data order are equal in
both. A pair with a missing side has no l and no d, but it has bounds: its cost lies between the
smallest one seen and the horizon, its loss between the smallest one seen and the largest at a
start, which is what a diverged run has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bdhf.records import AXES, Comparison, Records, Target, uncounted
from bdhf.records.environment import NOT_RECORDED, shown
from bdhf.stats.idle import idle
from bdhf.stats.losses import losses
from bdhf.stats.restriction import Horizon, horizon, restrict, smallest_cost
from bdhf.stats.targets import observe

#: What a run was computed on: its seconds are compared with those of the same hardware only.
HARDWARE = ("cpu", "gpu", "device")

#: Why pairs whose runs are whole are left out of a comparison of seconds.
APART = "timed on other hardware than the other run of the pair"
HALF_KNOWN = "with hardware recorded for one run of the pair only"

_COLUMNS = ["run_id", "status", "time", "cost", "hit", "note"]


@dataclass(frozen=True)
class Pairs:
    """The pairs of two arms for one target on one axis, or for one loss.

    `candidate` and `baseline` have one row per planned seed, the seed as index, in the same order,
    and the columns `run_id, status, time, cost, hit` of `restriction.restrict` (`cost` is the loss
    where losses are compared), and `note`, why a whole run is missing here. `cost` is NaN where the
    run is missing.
    """

    candidate: pd.DataFrame
    baseline: pd.DataFrame
    horizon: Horizon
    floor: float  # what a cost of 0 counts as in a ratio, in units of the axis; 0 for losses
    worst: float  # what a missing run may have had: the horizon, or the largest loss at a start

    def __len__(self) -> int:
        return len(self.candidate)

    @property
    def sides(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The runs of the candidate and of the baseline."""
        return self.candidate, self.baseline

    @cached_property
    def complete(self) -> Pairs:
        """The pairs with an outcome on both sides."""
        both = self.candidate["cost"].notna() & self.baseline["cost"].notna()
        return replace(self, candidate=self.candidate[both], baseline=self.baseline[both])

    @property
    def both_miss(self) -> NDArray[np.bool_]:
        """Which pairs, missing ones included, are known to miss on both sides."""
        misses = [side["cost"].notna() & ~side["hit"].astype(bool) for side in self.sides]
        return np.asarray(misses[0] & misses[1], dtype=bool)

    @cached_property
    def are_ratios(self) -> bool:
        """Whether every value is above 0, so that pairs have log ratios."""
        return all((side["cost"].dropna().clip(lower=self.floor) > 0).all() for side in self.sides)

    def differences(self) -> NDArray[np.float64]:
        """Candidate minus baseline of every complete pair, in units of the axis."""
        candidate, baseline = self.complete.sides
        return (candidate["cost"] - baseline["cost"]).to_numpy(dtype=float)

    def log_ratios(self) -> NDArray[np.float64]:
        """Log of candidate ÷ baseline of every complete pair; NaN where they have none."""
        candidate, baseline = self.complete.sides
        if not self.are_ratios:
            return np.full(len(candidate), np.nan)
        return self._log_ratios(candidate["cost"], baseline["cost"])

    def effects(self) -> NDArray[np.float64]:
        """What is tested: the log ratios, or the differences where there are none."""
        return self.log_ratios() if self.are_ratios else self.differences()

    def bound(self, *, best: bool) -> NDArray[np.float64]:
        """Effects with the missing sides filled in as best, or else worst, for the candidate.

        Best is the smallest value of the two arms against a baseline at the largest, and worst is
        the reverse; a side that is known keeps its value. A one-sided sign-flip p is monotone in
        every difference, so whatever the missing runs would have in that range, p lies between.
        """
        candidate, baseline = (side["cost"] for side in self.sides)
        smallest = min(candidate.min(), baseline.min())
        largest = np.nanmax([self.worst, candidate.max(), baseline.max()])
        low, high = (smallest, largest) if best else (largest, smallest)
        candidate, baseline = candidate.fillna(low), baseline.fillna(high)
        if self.are_ratios:
            return self._log_ratios(candidate, baseline)
        return (candidate - baseline).to_numpy(dtype=float)

    def _log_ratios(
        self, candidate: pd.Series[float], baseline: pd.Series[float]
    ) -> NDArray[np.float64]:
        ratio = candidate.clip(lower=self.floor) / baseline.clip(lower=self.floor)
        return np.log(ratio.to_numpy(dtype=float))


def pair(records: Records, entry: Comparison, target: Target | None) -> Pairs:
    """Pair the runs of the two arms of an entry by seed; a loss needs no target.

    Costs are restricted to the horizon that both share. A planned pair is a seed that the plan
    holds for both arms. Seconds of runs on different hardware make no pair.

    Raises ValueError when an arm has two runs of one seed, and when a cost has no target.
    """
    sides = entry.candidate, entry.baseline
    runs = records.runs[records.runs["arm"].isin(sides)]
    budget = records.budget_of(*sides)
    if not entry.is_to_target:
        table = losses(runs, records.curves, entry.estimand, budget)
        limit, floor = Horizon(np.nan, "loss"), 0.0
        worst = float(table["start"].where(np.isfinite(table["start"])).max())
    elif target is None:
        raise ValueError(f"compare: {entry.estimand} of {entry.name!r} needs a target")
    else:
        observed = observe(runs, records.curves, target, entry.axis)
        limit = horizon(observed, entry.axis, budget)
        table = restrict(observed, limit)
        floor, worst = smallest_cost(table, records.curves, entry.axis), limit.value
    table = table.assign(note=runs["reason"].map(uncounted).where(runs["status"].isna(), ""))
    left, right = (_by_seed(table, arm) for arm in sides)
    seeds = left.index.intersection(right.index).sort_values()
    pairs = Pairs(left.loc[seeds], right.loc[seeds], limit, floor, worst)
    if not entry.is_to_target:
        return pairs
    pairs = _without_idle(pairs, entry, records)
    return _on_one_hardware(pairs, records.environments) if entry.axis == "seconds" else pairs


def hardware(environments: pd.DataFrame) -> pd.Series[str]:
    """What every run was computed on, as one text by run id; no entry for what was not recorded.

    >>> hardware(pd.DataFrame({"run_id": ["a"], "cpu": ["EPYC"], "device": ["cpu"]}))["a"]
    'EPYC|cpu'
    """
    known = [name for name in HARDWARE if name in environments]
    if not known:
        return pd.Series(index=pd.Index([], dtype=object), dtype=object)
    rows = [
        [shown(name, value) for name, value in zip(known, row, strict=True)]
        for row in environments[known].itertuples(index=False)
    ]
    kinds = pd.Series(map("|".join, rows), environments["run_id"], dtype=object)
    return kinds[[set(row) != {NOT_RECORDED} for row in rows]]


def kinds_of(run_ids: pd.Series[str], environments: pd.DataFrame) -> pd.Series[str]:
    """The hardware of runs, in their order; what was not recorded is one kind more, the text ""."""
    return run_ids.map(hardware(environments)).astype(object).fillna("")


def elsewhere(runs: pd.DataFrame, environments: pd.DataFrame) -> pd.Series[bool]:
    """Say of every run whether it was timed on other hardware than most of them were.

    Hardware that was not recorded is one kind more. Of two kinds that are equally common the first
    in the alphabet is kept, whatever the order of the runs, and what was not recorded last.
    """
    kinds = kinds_of(runs["run_id"], environments)
    counts = {str(kind): int(n) for kind, n in kinds.value_counts().items()}
    commonest = min(counts, key=lambda kind: (-counts[kind], not kind, kind), default="")
    return kinds != commonest


def _by_seed(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    runs = table[table["arm"] == arm].set_index("seed")
    if runs.index.has_duplicates:
        seed = runs.index[runs.index.duplicated()][0]
        raise ValueError(f"runs: arm {arm!r} has more than one run of seed {seed}")
    return runs[_COLUMNS]


def _on_one_hardware(pairs: Pairs, environments: pd.DataFrame) -> Pairs:
    """Leave out pairs whose runs were timed on different hardware."""
    left, right = (kinds_of(side["run_id"], environments) for side in pairs.sides)
    both = pairs.candidate["cost"].notna() & pairs.baseline["cost"].notna()
    for which, note in (
        (both & (left != right) & (left != "") & (right != ""), APART),
        (both & (left != right) & ((left == "") | (right == "")), HALF_KNOWN),
    ):
        candidate, baseline = (_masked(side, which, note) for side in pairs.sides)
        pairs = replace(pairs, candidate=candidate, baseline=baseline)
    return pairs


def _without_idle(pairs: Pairs, entry: Comparison, records: Records) -> Pairs:
    """Leave out the costs of an arm that spends nothing on the axis: they say nothing of it."""
    unit = AXES[entry.axis][1]
    arms = entry.candidate, entry.baseline
    unspent = idle(records, arms, entry.axis)
    candidate, baseline = (
        _masked(side, side["cost"].notna() & (arm in unspent), f"that spent no {unit}")
        for arm, side in zip(arms, pairs.sides, strict=True)
    )
    return replace(pairs, candidate=candidate, baseline=baseline)


def _masked(side: pd.DataFrame, which: pd.Series[bool], note: str) -> pd.DataFrame:
    """The runs of one side, some of them without their cost."""
    return side.assign(cost=side["cost"].mask(which), note=side["note"].mask(which, note))

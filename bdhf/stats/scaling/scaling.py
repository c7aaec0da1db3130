"""The critical batch size of every group of arms: where larger batches stop saving updates.

    S(B) = S_min (1 + B_crit / B)

S is the number of updates to the target at batch size B. Far below B_crit, doubling the batch
halves the updates; far above, it saves none (McCandlish et al., 2018; Shallue et al., 2019). The
fit is that of `censored`. Its interval is that of `intervals`, which groups the runs of a seed
because they share data and initialisation. In simulations over 3 to 8 seeds, with and without
misses, a 95 % interval covers the true B_crit in 94 to 97 % (docs/statistics.md), and in fewer
where S_min is only a few updates, which are whole numbers.

The cost of an update grows with the batch in a way that depends on the machine. So seconds to the
target follow no such law: they have only means, over runs on one kind of hardware.

The curve is a fair comparison of optimizers only where each is tuned at every batch size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bdhf.records import Records, Status, Target, natural
from bdhf.stats.observations.cost_bounds import restricted
from bdhf.stats.observations.hardware import elsewhere
from bdhf.stats.observations.restriction import smallest_cost
from bdhf.stats.observations.targets import OUTCOMES
from bdhf.stats.scaling.censored import CensoredSample, fit
from bdhf.stats.scaling.intervals import critical_batch_interval
from bdhf.stats.summaries.costs import label_without

AXIS = "batch.gradient"

#: The axes of the means: the law is one of updates; seconds are the cost in practice.
DRAWN = ("updates", "seconds")

_POINTS = ("axis", "target", "group", "arm", "size", "seed", "cost", "hit")
_MEANS = ("axis", "target", "group", "size", "cost", "hits", "runs")


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """The batch scaling of one group for one target."""

    group: str  # the label of its arms without the batch size
    target: str  # in words
    s_min: float  # updates
    b_crit: float  # samples; where `at_limit`, only that limit of the search
    low: float  # of the interval, in samples; 0 where it has no lower end
    high: float  # inf where it has no upper end
    sizes: tuple[float, ...]  # batch sizes with an outcome
    seeds: int
    points: int  # runs in the fit
    censored: int  # of these: misses
    at_limit: int  # -1: updates do not fall with the batch; 1: they fall throughout; else 0

    @property
    def is_bounded(self) -> bool:
        """Whether B_crit is at no limit and its interval has two ends."""
        return self.at_limit == 0 and self.low > 0 and math.isfinite(self.high)

    @property
    def is_inside(self) -> bool:
        """Whether B_crit lies among the sizes that were run."""
        return self.at_limit == 0 and self.sizes[0] <= self.b_crit <= self.sizes[-1]

    def at(self, size: float) -> float:
        """S(B), in updates."""
        return self.s_min * (1 + self.b_crit / size)


def batch_scaling(records: Records) -> tuple[Scaling, ...]:
    """Fit every group of arms that was run at three batch sizes or more, for every target.

    A group with fewer sizes, or with hits at fewer than two of them, has no fit.

    Raises ValueError for a target whose metric the curves do not have.
    """
    table = points(records)
    return tuple(
        scaling
        for (target, group), runs in table.groupby(["target", "group"], sort=False)
        if (scaling := of_points(runs, str(group), str(target), records.alpha)) is not None
    )


def points(records: Records, axis: str = "updates") -> pd.DataFrame:
    """Every run with a batch size and an outcome, with the columns of `_POINTS`.

    `cost`, in units of the axis, is for a miss the cost up to which it was observed; a diverged run
    can never hit, so it counts as observed up to the budget (or the follow-up of the others).
    Seconds are those of the runs on the most common hardware only.

    Raises ValueError for a target whose metric the curves do not have and for an unknown axis.
    """
    records = records.in_order()
    if axis == "seconds":
        records = _on_one_hardware(records)
    parts = [
        _of_arm(records, target, axis, arm, size)
        for target in records.targets
        for arm, size in _sizes(records).items()
    ]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(_POINTS))


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Geometric means over the runs of every size, with the columns of `_MEANS`.

    A miss counts as the cost up to which it was observed, so its mean is a lower bound.

    >>> table = pd.DataFrame({"axis": "updates", "target": "t", "group": "hf", "size": 100.0,
    ...                       "seed": [0, 1], "cost": [10.0, 40.0], "hit": [True, False]})
    >>> means(table)[["size", "cost", "hits", "runs"]]
        size  cost  hits  runs
    0  100.0  20.0     1     2
    """
    logs = table.assign(cost=np.log(table["cost"].astype(float)))
    groups = logs.groupby(["axis", "target", "group", "size"], sort=False)
    averages = groups.agg(cost=("cost", "mean"), hits=("hit", "sum"), runs=("hit", "size"))
    return averages.assign(cost=np.exp(averages["cost"]).round(9)).reset_index()


def drawn(records: Records) -> pd.DataFrame:
    """The means on every axis of `DRAWN` on which some run has an outcome.

    Raises ValueError for a target whose metric the curves do not have.
    """
    parts = [part for axis in DRAWN if len(part := points(records, axis))]
    return means(pd.concat(parts, ignore_index=True)) if parts else pd.DataFrame(columns=[*_MEANS])


def sized(records: Records) -> pd.DataFrame:
    """The rows of `records.runs` with a batch size and an outcome, and whether they are timed.

    `elsewhere`: on other hardware than the most common one, so their seconds are in no mean.
    """
    runs = records.runs[records.runs["arm"].isin(list(_sizes(records)))]
    runs = runs[runs["status"].isin(OUTCOMES)]
    return runs.assign(elsewhere=elsewhere(runs, records.environments))


def of_points(runs: pd.DataFrame, group: str, target: str, alpha: float) -> Scaling | None:
    """Fit the runs of one group, with the columns `size, seed, cost, hit`; None: not enough."""
    runs = runs.sort_values(["size", "seed"], kind="stable")
    sample = CensoredSample(*(runs[name].to_numpy(kind) for name, kind in _TYPES))
    if not sample.is_enough:
        return None
    best = fit(sample, limits=sample.limits)
    seeds = runs["seed"].to_numpy()
    low, high = critical_batch_interval(sample, seeds, best, alpha)
    return Scaling(
        group=group,
        target=target,
        s_min=best.s_min,
        b_crit=best.b_crit,
        low=low,
        high=high,
        sizes=tuple(float(size) for size in np.unique(sample.size)),
        seeds=len(np.unique(seeds)),
        points=len(runs),
        censored=int((~sample.hit).sum()),
        at_limit=best.at_limit,
    )


_TYPES = (("size", float), ("cost", float), ("hit", bool))


def _sizes(records: Records) -> dict[str, float]:
    """The batch size of every arm that has one, by group and then by size."""
    sizes = {}
    for arm, words in records.values_of(AXIS).items():
        try:
            sizes[arm] = float(words)
        except ValueError:  # a value that is no number is not on the axis
            continue
    groups = {arm: natural(label_without(records, arm, [AXIS])) for arm in sizes}
    return {arm: sizes[arm] for arm in sorted(sizes, key=lambda arm: (groups[arm], sizes[arm]))}


def _on_one_hardware(records: Records) -> Records:
    """The records without the runs whose seconds are in no mean."""
    runs = sized(records)
    gone = runs.loc[runs["elsewhere"], "run_id"]
    if gone.empty:
        return records
    tables = (table[~table["run_id"].isin(gone)] for table in (records.runs, records.curves))
    kept, curves = tables
    return replace(records, runs=kept, curves=curves)


def _of_arm(records: Records, target: Target, axis: str, arm: str, size: float) -> pd.DataFrame:
    runs = records.runs[records.runs["arm"] == arm]
    observed, limit = restricted(runs, records.curves, target, axis, records.budget_of(arm))
    floor = smallest_cost(observed.assign(cost=observed["time"]), records.curves, axis)
    diverged = observed["status"] == Status.DIVERGED.value
    table = observed.assign(
        axis=axis,
        target=target.label,
        group=label_without(records, arm, [AXIS]),
        size=size,
        cost=observed["time"].mask(diverged, limit.value).clip(lower=floor),
        hit=observed["reached"],
    )
    return table.loc[table["cost"].notna(), list(_POINTS)]

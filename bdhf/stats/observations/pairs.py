"""Two arms on the same seeds: one pair of values per seed.

    l_i = log(Y_candidate,i / Y_baseline,i)        d_i = Y_candidate,i - Y_baseline,i

Y is a restricted cost or a loss. Seeds pair arms because initialisation and data order are equal in
both. A pair with a missing side has no l and no d, but it has bounds (`cost_bounds`). A cost is
known to one evaluation interval, and so is a log ratio: it lies in the box of its pair

    log(earliest_candidate,i / Y_baseline,i)   to   log(Y_candidate,i / earliest_baseline,i)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bdhf.stats.observations.restriction import Horizon

#: Factor up to which evaluation intervals count as equally costly.
_ALIKE = 1.25


@dataclass(frozen=True)
class Pairs:
    """The pairs of two arms for one target on one axis, or for one loss.

    `candidate` and `baseline` have one row per planned seed, the seed as index, in the same order,
    and the columns `run_id, status, time, cost, hit` of `restriction.restrict` (`cost` is the loss
    where losses are compared), `earliest`, `least` and `most` of `cost_bounds`, and `note`, why a
    whole run is missing here. `cost` is NaN where the run is missing.
    """

    candidate: pd.DataFrame
    baseline: pd.DataFrame
    horizon: Horizon
    floor: float  # what a cost of 0 counts as in a ratio, in units of the axis; 0 for losses

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

    @property
    def both_free(self) -> NDArray[np.bool_]:
        """Which pairs are known to have met the target on both sides at no cost.

        That is, the target holds before the first update.
        """
        free = self._free
        return np.asarray(free[0] & free[1], dtype=bool)

    @property
    def uninformative(self) -> NDArray[np.bool_]:
        """Which pairs tie regardless of the arms: the equivalence test excludes them.

        A cost of 0 against one at the floor is such a tie, because 0 counts as the floor.
        """
        free, low = self._free, [side["cost"] <= self.floor for side in self.sides]
        by_floor = (free[0] ^ free[1]) & low[0] & low[1]
        return np.asarray(self.both_miss | self.both_free | by_floor, dtype=bool)

    @property
    def _free(self) -> list[pd.Series[bool]]:
        """Which runs of either side met the target at no cost."""
        return [side["hit"].astype(bool) & (side["cost"] <= 0) for side in self.sides]

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
        return _log_ratios(self._at_least(candidate["cost"]), self._at_least(baseline["cost"]))

    def effects(self) -> NDArray[np.float64]:
        """The tested values: the log ratios, or the differences where there are none."""
        return self.log_ratios() if self.are_ratios else self.differences()

    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The smallest and the largest possible log ratio of every complete pair.

        NaN where the pairs have none. Equal to the log ratios where evaluations are a single
        update apart.
        """
        if not self.are_ratios:
            return self.log_ratios(), self.log_ratios()
        candidate, baseline = (self._at_least(side["cost"]) for side in self.complete.sides)
        early_candidate, early_baseline = (self._earliest(side) for side in self.complete.sides)
        return _log_ratios(early_candidate, baseline), _log_ratios(candidate, early_baseline)

    @cached_property
    def late(self) -> tuple[float, float]:
        """The largest delay of recorded hits: means of candidate and of baseline.

        In units of the axis, over the complete pairs; 0 where an arm has no hit. A hit at no cost
        happened at the start, which is never recorded late.
        """
        means = []
        for side in self.complete.sides:
            late = side["cost"] - side["earliest"]
            mean = late[(side["hit"].astype(bool) & (side["cost"] > 0)) | (late > 0)].mean()
            means.append(0.0 if np.isnan(mean) else float(mean))
        return means[0], means[1]

    @cached_property
    def evaluations_differ(self) -> bool:
        """Whether evaluation intervals cost one arm more, so that its hits are recorded later.

        Then recorded costs of identical arms are not exchangeable.
        """
        return self.are_ratios and max(self.late) > _ALIKE * min(self.late)

    @cached_property
    def are_certain(self) -> bool:
        """Whether every cost is certain.

        No run is missing or only bounded, and evaluation intervals cost both arms alike.
        """
        return not self.evaluations_differ and all(
            bool((side["cost"].eq(side["least"]) & side["cost"].eq(side["most"])).all())
            for side in self.sides
        )

    def filled(self, *, best: bool) -> Pairs:
        """The pairs with every uncertain run at its best, or else worst, for the candidate.

        Best is the lower bound of the candidate's runs with the upper bound of the baseline's, and
        worst the reverse. A one-sided sign-flip p is monotone in every difference, so for all costs
        within the bounds p lies between those of best and worst. An infinite bound gives an
        infinite effect. An imputed run is not known to miss.
        """
        ends = ("least", "most") if best else ("most", "least")
        candidate, baseline = (
            _filled(side, side[end].clip(lower=self.floor))
            for side, end in zip(self.sides, ends, strict=True)
        )
        return replace(self, candidate=candidate, baseline=baseline)

    def ends(self, best: Pairs, worst: Pairs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The tested values of the `filled` pairs, at the best and at the worst for the candidate.

        Where evaluation intervals cost one arm more than the other, every hit is at the end of its
        box. Elsewhere a hit has its recorded cost.
        """
        if self.evaluations_differ:
            return best.box()[0], worst.box()[1]
        return best.effects(), worst.effects()

    def _at_least(self, costs: pd.Series[float]) -> pd.Series[float]:
        """The costs as they count in a ratio."""
        return costs.clip(lower=self.floor)

    def _earliest(self, side: pd.DataFrame) -> pd.Series[float]:
        """The earliest costs in a ratio; a cost of 0 is certain, and counts as the floor."""
        return side["earliest"].where(side["cost"] > 0, self.floor)


def _log_ratios(candidate: pd.Series[float], baseline: pd.Series[float]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):  # a baseline without an upper bound: -inf
        return np.log((candidate / baseline).to_numpy(dtype=float))


def _filled(side: pd.DataFrame, ends: pd.Series[float]) -> pd.DataFrame:
    """One side with its uncertain runs at these bounds."""
    uncertain = side["cost"].isna() | (side["least"] < side["most"])
    missing = side["cost"].isna()
    return side.assign(
        cost=side["cost"].mask(uncertain, ends),
        earliest=side["earliest"].mask(uncertain, ends),
        hit=side["hit"].astype(bool) | missing,
    )

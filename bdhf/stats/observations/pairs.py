"""Two arms on the same seeds: one pair of values per seed.

    l_i = log(Y_candidate,i / Y_baseline,i)        d_i = Y_candidate,i - Y_baseline,i

Y is a restricted cost or a loss. Seeds pair arms because initialisation and data order are equal in
both. A pair with a missing side has no l and no d, but it has bounds (`bounds`). A cost is known to
one evaluation, and so is a log ratio: it lies in the box of its pair

    log(earliest_candidate,i / Y_baseline,i)   to   log(Y_candidate,i / earliest_baseline,i)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bdhf.stats.observations.restriction import Horizon

#: Evaluations whose costs differ by no more than this factor cost both arms alike.
_ALIKE = 1.25


@dataclass(frozen=True)
class Pairs:
    """The pairs of two arms for one target on one axis, or for one loss.

    `candidate` and `baseline` have one row per planned seed, the seed as index, in the same order,
    and the columns `run_id, status, time, cost, hit` of `restriction.restrict` (`cost` is the loss
    where losses are compared), `earliest`, `least` and `most` of `bounds`, and
    `note`, why a whole run is missing here. `cost` is NaN where the run is missing.
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

        So they do where it holds before the first update.
        """
        free = self._free
        return np.asarray(free[0] & free[1], dtype=bool)

    @property
    def says_nothing(self) -> NDArray[np.bool_]:
        """Which pairs tie whatever the arms are worth: `equivalent` takes others.

        So does no cost beside one at the floor, since it counts as that much.
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
        """What is tested: the log ratios, or the differences where there are none."""
        return self.log_ratios() if self.are_ratios else self.differences()

    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The least and the largest that the log ratio of every complete pair may have been.

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
        """By how much hits may have been recorded too late: means of candidate and of baseline.

        In units of the axis, over the complete pairs; 0 where an arm has no hit. A hit at no cost
        was at the start, which no evaluation records late.
        """
        means = []
        for side in self.complete.sides:
            late = side["cost"] - side["earliest"]
            mean = late[(side["hit"].astype(bool) & (side["cost"] > 0)) | (late > 0)].mean()
            means.append(0.0 if np.isnan(mean) else float(mean))
        return means[0], means[1]

    @cached_property
    def evaluations_differ(self) -> bool:
        """Whether evaluations cost one arm more than the other: its hits are recorded later.

        Then recorded costs of arms that are alike are not exchangeable.
        """
        return self.are_ratios and max(self.late) > _ALIKE * min(self.late)

    @cached_property
    def are_certain(self) -> bool:
        """Whether no run could have cost anything else.

        None is missing, no miss is guessed, and evaluations cost both arms alike.
        """
        return not self.evaluations_differ and all(
            bool((side["cost"].eq(side["least"]) & side["cost"].eq(side["most"])).all())
            for side in self.sides
        )

    def filled(self, *, best: bool) -> Pairs:
        """The pairs with every uncertain run as best, or else worst, for the candidate.

        Best is the least that the candidate's runs may have cost against the most that those of the
        baseline may have, and worst is the reverse. A one-sided sign-flip p is monotone in every
        difference, so whatever these runs would have cost between their ends, p lies between. Where
        an end is infinite, so is the effect. A filled run is not known to miss.
        """
        ends = ("least", "most") if best else ("most", "least")
        candidate, baseline = (
            _filled(side, side[end].clip(lower=self.floor))
            for side, end in zip(self.sides, ends, strict=True)
        )
        return replace(self, candidate=candidate, baseline=baseline)

    def ends(self, best: Pairs, worst: Pairs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What is tested of the pairs as `filled`, as good and as bad for the candidate as may be.

        Where evaluations cost one arm more than the other, so may every hit have been: the end of
        its box. Elsewhere a hit is what was recorded.
        """
        if self.evaluations_differ:
            return best.box()[0], worst.box()[1]
        return best.effects(), worst.effects()

    def _at_least(self, costs: pd.Series[float]) -> pd.Series[float]:
        """What costs count as in a ratio."""
        return costs.clip(lower=self.floor)

    def _earliest(self, side: pd.DataFrame) -> pd.Series[float]:
        """The earliest costs in a ratio; a cost of 0 is known, and counts as the floor."""
        return side["earliest"].where(side["cost"] > 0, self.floor)


def _log_ratios(candidate: pd.Series[float], baseline: pd.Series[float]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):  # against a baseline that may cost anything: -inf
        return np.log((candidate / baseline).to_numpy(dtype=float))


def _filled(side: pd.DataFrame, ends: pd.Series[float]) -> pd.DataFrame:
    """One side with its uncertain runs at these ends."""
    uncertain = side["cost"].isna() | (side["least"] < side["most"])
    missing = side["cost"].isna()
    return side.assign(
        cost=side["cost"].mask(uncertain, ends),
        earliest=side["earliest"].mask(uncertain, ends),
        hit=side["hit"].astype(bool) | missing,
    )

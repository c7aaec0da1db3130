"""Two arms on the same seeds: one pair of restricted costs per seed.

    l_i = log(Y_candidate,i / Y_baseline,i)        d_i = Y_candidate,i - Y_baseline,i

Seeds pair arms because initialisation and data order are equal in both. A pair with a missing side
has no l and no d, but it has bounds: a cost lies between the smallest one seen and the horizon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bdhf.records import Records, Target
from bdhf.stats.restriction import Horizon, horizon, restrict, smallest_cost
from bdhf.stats.targets import observe


@dataclass(frozen=True)
class Pairs:
    """The pairs of two arms for one target on one axis.

    `candidate` and `baseline` have one row per planned seed, in the same order, and the columns
    `run_id, status, time, cost, hit` of `restriction.restrict`; `cost` is NaN where the run is
    missing.
    """

    candidate: pd.DataFrame
    baseline: pd.DataFrame
    horizon: Horizon
    floor: float  # what a cost of 0 counts as in a ratio, in units of the axis

    def __len__(self) -> int:
        return len(self.candidate)

    @property
    def sides(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The runs of the candidate and of the baseline."""
        return self.candidate, self.baseline

    @property
    def complete(self) -> Pairs:
        """The pairs with an outcome on both sides."""
        both = self.candidate["cost"].notna() & self.baseline["cost"].notna()
        return replace(self, candidate=self.candidate[both], baseline=self.baseline[both])

    def differences(self) -> NDArray[np.float64]:
        """Candidate minus baseline of every complete pair, in units of the axis."""
        candidate, baseline = self.complete.sides
        return (candidate["cost"] - baseline["cost"]).to_numpy(dtype=float)

    def log_ratios(self) -> NDArray[np.float64]:
        """Log of candidate ÷ baseline of every complete pair."""
        candidate, baseline = self.complete.sides
        return self._log_ratios(candidate["cost"], baseline["cost"])

    def bound(self, *, best: bool) -> NDArray[np.float64]:
        """Log ratios with the missing sides filled in as best, or else worst, for the candidate.

        Best is the smallest cost of the two arms against a baseline at the horizon, and worst is
        the reverse; a side that is known keeps its cost. A one-sided sign-flip p is monotone in
        every difference, so whatever the missing runs would cost in that range, p lies between.
        """
        candidate, baseline = (side["cost"] for side in self.sides)
        smallest, tau = min(candidate.min(), baseline.min()), self.horizon.value
        if best:
            return self._log_ratios(candidate.fillna(smallest), baseline.fillna(tau))
        return self._log_ratios(candidate.fillna(tau), baseline.fillna(smallest))

    def _log_ratios(
        self, candidate: pd.Series[float], baseline: pd.Series[float]
    ) -> NDArray[np.float64]:
        ratio = candidate.clip(lower=self.floor) / baseline.clip(lower=self.floor)
        return np.log(ratio.to_numpy(dtype=float))


def pair(records: Records, candidate: str, baseline: str, target: Target, axis: str) -> Pairs:
    """Pair the runs of two arms by seed and restrict their costs to the horizon that they share.

    A planned pair is a seed that the plan holds for both arms. Raises ValueError when an arm has
    two runs of one seed.
    """
    runs = records.runs[records.runs["arm"].isin([candidate, baseline])]
    observed = observe(runs, records.curves, target, axis)
    limit = horizon(observed, axis, records.budget_of(candidate, baseline))
    restricted = restrict(observed, limit)
    left, right = _by_seed(restricted, candidate), _by_seed(restricted, baseline)
    seeds = left.index.intersection(right.index).sort_values()
    floor = smallest_cost(restricted, records.curves, axis)
    return Pairs(left.loc[seeds], right.loc[seeds], limit, floor)


def _by_seed(restricted: pd.DataFrame, arm: str) -> pd.DataFrame:
    runs = restricted[restricted["arm"] == arm].set_index("seed")
    if runs.index.has_duplicates:
        seed = runs.index[runs.index.duplicated()][0]
        raise ValueError(f"runs: arm {arm!r} has more than one run of seed {seed}")
    return runs[["run_id", "status", "time", "cost", "hit"]]

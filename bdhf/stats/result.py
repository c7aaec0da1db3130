"""What one comparison says: the frozen row that every test fills and every report reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """The answer to "is the candidate better than the baseline?"."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One comparison entry on one target, paired by seed.

    Costs are on the entry's axis, restricted at `horizon` (the budget on its own axis): a run that
    misses the target costs `horizon`. Ratios are candidate ÷ baseline, so below 1 is better.
    """

    name: str
    candidate: str
    baseline: str
    axis: str  # a key of records.AXES
    target: str  # in words: "val_loss ≤ 0.02"
    horizon: float  # the restriction of the means (tau), in units of the axis; NaN before any run
    planned: int  # pairs in the plan
    pairs: int  # pairs with an outcome on both sides
    candidate_hits: int  # of `pairs`: runs that reached the target within the horizon
    baseline_hits: int
    candidate_mean: float  # restricted mean cost (RMST), in units of the axis
    baseline_mean: float
    wins: int  # pairs in which the candidate was cheaper
    ties: int
    losses: int
    ratio: float  # geometric mean of the paired cost ratios
    ratio_low: float  # interval that inverts the same test as `p`, at `alpha` (not widened by Holm)
    ratio_high: float
    difference: float  # candidate_mean - baseline_mean
    difference_low: float  # interval that inverts the sign-flip test of the differences
    difference_high: float
    alpha: float  # level of the family of comparisons
    p: float  # two-sided sign-flip p of the log ratios
    p_holm: float  # the same after Holm over all `tests`
    tests: int  # tests of the ablation, which Holm counts
    verdict: Verdict
    flags: tuple[str, ...]  # what a reader must know beside the number, in words

    def to_row(self) -> dict[str, Any]:
        """Flatten to the row of comparisons.parquet."""
        return {**asdict(self), "verdict": str(self.verdict), "flags": "; ".join(self.flags)}

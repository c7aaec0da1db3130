"""The result of one comparison: the frozen row that every report reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from bdhf.records import LOSSES, unit_of


class Verdict(StrEnum):
    """The answer to "is the candidate better than the baseline?"."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One comparison entry on one target, or on a loss, paired by seed.

    Values are costs to the target, or losses; less is better. Costs are on the estimand's axis,
    restricted at `horizon` (the budget on its own axis): a run that misses the target costs
    `horizon`. Ratios are candidate ÷ baseline, so below 1 is better; they are NaN where a loss is
    not positive, and then `p` tests the differences.
    """

    name: str
    candidate: str
    baseline: str
    estimand: str  # a key of records.Estimand
    target: str  # in words: "val_loss ≤ 0.02"; "" for a loss
    horizon: float  # the restriction of the means (tau); NaN for a loss, and before any run
    planned: int  # pairs in the plan
    pairs: int  # pairs with an outcome on both sides
    untied: int  # of `pairs`: those that differ
    candidate_hits: int  # of `pairs`: runs that reached the target within the horizon; for a loss
    baseline_hits: int  # those that did not diverge
    candidate_mean: float  # restricted mean cost (RMST), or mean loss
    baseline_mean: float
    wins: int  # pairs in which the candidate has less
    ties: int
    losses: int
    ratio: float  # geometric mean of the paired ratios
    ratio_low: float  # interval that inverts the same test as `p`, at `alpha` (not widened by Holm)
    ratio_high: float
    ratio_bca_low: float  # BCa bootstrap over pairs; NaN where all pairs are alike
    ratio_bca_high: float
    log_ratio_sd: float  # standard deviation of the paired log ratios; NaN below two pairs
    difference: float  # candidate_mean - baseline_mean
    difference_low: float  # interval that inverts the sign-flip test of the differences
    difference_high: float
    win_probability: float  # share of pairs that the candidate wins, ties half
    rank_biserial: float  # matched pairs, -1 to 1; above 0 the candidate is better
    alpha: float  # level of the family of comparisons
    p: float  # two-sided sign-flip p of the log ratios
    p_holm: float  # the same after Holm over all `tests`
    tests: int  # tests of the ablation, which Holm counts
    p_wilcoxon: float  # Wilcoxon's signed ranks, ties after Pratt
    p_sign: float  # sign test
    p_mcnemar: float  # McNemar on reached or not, exact; 1 for a loss
    margin: float  # ratio within which arms are equivalent, fixed by the spec; NaN: none
    p_equivalence: float  # two one-sided tests, over pairs of which a run hit; NaN: no margin
    p_equivalence_holm: float  # the same after Holm over the tests that have a margin
    verdict: Verdict
    seeds_to_decide: float  # pairs with 80 % power at this effect; NaN: decided, or unknown
    flags: tuple[str, ...]  # caveats, in words

    @property
    def is_to_target(self) -> bool:
        """Whether values are costs to a target; otherwise they are losses."""
        return self.estimand not in LOSSES

    @property
    def unit(self) -> str:
        """The unit of the values, in words."""
        return unit_of(self.estimand)

    @property
    def question(self) -> str:
        """What was measured, in words: "updates to val_loss ≤ 0.02"."""
        return f"{self.unit} to {self.target}" if self.is_to_target else self.unit

    def to_row(self) -> dict[str, Any]:
        """Flatten to the row of comparisons.parquet."""
        return {**asdict(self), "verdict": str(self.verdict), "flags": "; ".join(self.flags)}

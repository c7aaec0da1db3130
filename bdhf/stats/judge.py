"""From pairs to verdicts: every test of an ablation, corrected together.

    p             sign-flip test of the mean log ratio of values, candidate ÷ baseline
    p_holm        p after Holm's step-down over all tests of the ablation
    p_equivalence two one-sided tests at the entry's margin, over the pairs of which a run hit;
                  Holm over those that have a margin
    verdict       better or worse, by the sign of the mean, if p_holm ≤ alpha; else equivalent, if
                  its p after Holm is ≤ alpha and enough runs hit; else undecided

A verdict is undecided if uncertain costs could change it: those of missing pairs, of diverged
runs, and of hits between evaluations where these cost one arm more than the other. Holm's
correction connects the tests, so the uncertain costs of other tests count too: each of them then
has the largest p that its runs allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bdhf.records import Comparison, Records, Target, tests_of
from bdhf.stats.inference.equivalence import LEAST_HITS, equivalence, equivalence_over
from bdhf.stats.inference.paired import SignFlip, one_sided, outweighing, sign_flip
from bdhf.stats.observations.pairing import pair
from bdhf.stats.observations.pairs import Pairs
from bdhf.stats.result import Verdict


@dataclass(frozen=True)
class HypothesisTest:
    """One entry on one target (None for a loss), before any correction."""

    entry: Comparison
    target: Target | None
    pairs: Pairs
    effect: SignFlip  # of the log ratios, or of the differences where there are none
    p_equivalence: float  # NaN without a margin, and without log ratios

    @property
    def hits(self) -> tuple[int, int]:
        """Hits of the candidate and of the baseline, over complete pairs."""
        candidate, baseline = self.pairs.complete.sides
        return int(candidate["hit"].sum()), int(baseline["hit"].sum())

    @property
    def enough_hits(self) -> bool:
        """Whether enough runs of both arms hit for costs to be called equivalent."""
        return min(self.hits) >= LEAST_HITS * self.effect.n

    @cached_property
    def at_most(self) -> tuple[float, float]:
        """The largest p, and the largest p of equivalence, that its uncertain runs allow."""
        if self.pairs.are_certain:
            return self.effect.p, self.p_equivalence
        best, worst = (self.pairs.filled(best=side) for side in (True, False))
        above, below = map(outweighing, self.pairs.ends(best, worst))
        p = min(1.0, 2 * min(one_sided(below), one_sided(-above)))  # either half is monotone
        same = equivalence_over(best, worst, self.entry.margin)
        return max(p, self.effect.p), max(same, self.p_equivalence)

    def at_margin(self, margin: float | None) -> HypothesisTest:
        """The same test with another margin."""
        entry = self.entry.model_copy(update={"margin": margin})
        same = equivalence(self.pairs, margin)
        return replace(self, entry=entry, p_equivalence=same)


@dataclass(frozen=True)
class Judged:
    """A test among all tests of its ablation."""

    test: HypothesisTest
    tests: int  # of the ablation, which Holm counts
    p_holm: float
    p_equivalence_holm: float
    observed: Verdict  # of the complete pairs
    bounds: dict[str, Verdict]  # with uncertain runs at the candidate's `best` and `worst`
    others: Verdict  # the first other verdict that uncertain runs of other tests allow

    @property
    def is_overturned(self) -> bool:
        """Whether the costs of uncertain runs could change the verdict."""
        verdicts = (*self.bounds.values(), self.others)
        return any(verdict is not self.observed for verdict in verdicts)

    @property
    def verdict(self) -> Verdict:
        """The observed verdict, or undecided where it is overturned."""
        return Verdict.UNDECIDED if self.is_overturned else self.observed


def tested(records: Records) -> tuple[HypothesisTest, ...]:
    """Make every test of an ablation, in order."""
    return tuple(
        test(records, entry, target)
        for entry, target in tests_of(records.comparisons, records.targets)
    )


def test(records: Records, entry: Comparison, target: Target | None) -> HypothesisTest:
    """Pair the runs of one entry and test them."""
    pairs = pair(records, entry, target)
    return HypothesisTest(
        entry=entry,
        target=target,
        pairs=pairs,
        effect=sign_flip(pairs.effects(), alpha=records.alpha),
        p_equivalence=equivalence(pairs, entry.margin),
    )


test.__test__ = False  # type: ignore[attr-defined]


def judge(tests: Sequence[HypothesisTest], alpha: float) -> tuple[Judged, ...]:
    """Correct the tests of one ablation for multiplicity, and decide each verdict."""
    return tuple(judge_one(tests, index, alpha) for index in range(len(tests)))


def judge_one(tests: Sequence[HypothesisTest], index: int, alpha: float) -> Judged:
    """Decide the verdict of one test among all tests of its ablation."""
    subject = tests[index]
    p = [test.effect.p for test in tests]
    p_equivalence = [test.p_equivalence for test in tests]
    p_holm, same_holm = holm(p)[index], holm(p_equivalence)[index]
    mean, enough = subject.effect.mean, subject.enough_hits
    observed = _verdict(mean, p_holm, same_holm, alpha, enough=enough)
    decided = observed is not Verdict.UNDECIDED
    bounds = _bounds(subject, p, p_equivalence, index, alpha) if decided else {}
    others = _with_others(tests, index, alpha, observed) if decided else observed
    return Judged(subject, len(tests), p_holm, same_holm, observed, bounds, others)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for multiplicity (Holm, 1979); NaN is no test, and stays.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, least = [math.nan] * len(p), 0.0
    order = sorted((value, index) for index, value in enumerate(p) if not math.isnan(value))
    for done, (value, index) in enumerate(order):
        least = max(least, min(1.0, (len(order) - done) * value))
        corrected[index] = least
    return corrected


def _verdict(
    mean: float, p_holm: float, same_holm: float, alpha: float, *, enough: bool
) -> Verdict:
    if p_holm <= alpha:
        return Verdict.BETTER if mean < 0 else Verdict.WORSE
    return Verdict.EQUIVALENT if enough and same_holm <= alpha else Verdict.UNDECIDED


def _bounds(
    subject: HypothesisTest,
    p: Sequence[float],
    p_equivalence: Sequence[float],
    index: int,
    alpha: float,
) -> dict[str, Verdict]:
    """Judge a test with its uncertain runs at the candidate's best and worst.

    For `equivalent` a missing run does not count as a hit, because it may have missed.
    """
    if subject.pairs.are_certain:
        return {}
    enough = min(subject.hits) >= LEAST_HITS * len(subject.pairs)
    best, worst = (subject.pairs.filled(best=side) for side in (True, False))
    same = equivalence_over(best, worst, subject.entry.margin)
    same_holm = holm([*p_equivalence[:index], same, *p_equivalence[index + 1 :]])[index]
    bounds = {}
    for name, effects in zip(("best", "worst"), subject.pairs.ends(best, worst), strict=True):
        filled = sign_flip(outweighing(effects), alpha=alpha)
        p_holm = holm([*p[:index], filled.p, *p[index + 1 :]])[index]
        bounds[name] = _verdict(filled.mean, p_holm, same_holm, alpha, enough=enough)
    return bounds


def _with_others(
    tests: Sequence[HypothesisTest], index: int, alpha: float, observed: Verdict
) -> Verdict:
    """Judge a test with the largest p of all others; `observed` where the verdict stays."""
    if all(test.pairs.are_certain for test in (*tests[:index], *tests[index + 1 :])):
        return observed
    subject, p, same = tests[index], *zip(*(test.at_most for test in tests), strict=True)
    mean, enough = subject.effect.mean, subject.enough_hits
    verdicts = _bounds(subject, p, same, index, alpha) or {
        "observed": _verdict(mean, holm(p)[index], holm(same)[index], alpha, enough=enough)
    }
    return next((verdict for verdict in verdicts.values() if verdict is not observed), observed)

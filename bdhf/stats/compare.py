"""Records -> results: one paired test per comparison entry × target, corrected together.

    p             sign-flip test of the mean log ratio of values, candidate ÷ baseline
    p_holm        p after Holm's step-down over all tests of the ablation
    p_equivalence two one-sided tests at the entry's margin, over the pairs of which a run hit;
                  Holm over those that have a margin
    verdict       better or worse, by the sign of the mean, if p_holm ≤ alpha; else equivalent, if
                  its p after Holm is ≤ alpha and enough runs hit; else undecided

The interval of the ratio inverts the very test that gives p, so it excludes 1 exactly when
p ≤ alpha. A verdict that the missing pairs could change is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from bdhf.records import Comparison, Records, Target, tests_of
from bdhf.stats import flags, robustness
from bdhf.stats.equivalence import LEAST_HITS, equivalence
from bdhf.stats.paired import SignFlip, sign_flip
from bdhf.stats.pairs import Pairs, pair
from bdhf.stats.power import seeds_to_decide
from bdhf.stats.result import Result, Verdict


@dataclass(frozen=True)
class Test:
    """One entry on one target (None for a loss), before any correction."""

    entry: Comparison
    target: Target | None
    pairs: Pairs
    effect: SignFlip  # of the log ratios, or of the differences where there are none
    p_equivalence: float  # NaN without a margin, and without log ratios

    @property
    def hits(self) -> tuple[int, int]:
        """Complete pairs' runs of the candidate, and of the baseline, that are hits."""
        candidate, baseline = self.pairs.complete.sides
        return int(candidate["hit"].sum()), int(baseline["hit"].sum())

    @property
    def enough_hits(self) -> bool:
        """Whether so many runs of both arms hit that costs can be called equivalent."""
        return min(self.hits) >= LEAST_HITS * self.effect.n

    def at_margin(self, margin: float | None) -> Test:
        """The same test with another margin."""
        entry = self.entry.model_copy(update={"margin": margin})
        same = equivalence(self.pairs.effects(), self.pairs, margin)
        return replace(self, entry=entry, p_equivalence=same)


@dataclass(frozen=True)
class Judged:
    """A test among all tests of its ablation."""

    test: Test
    p_holm: float
    p_equivalence_holm: float
    observed: Verdict  # of the complete pairs
    bounds: dict[str, Verdict]  # with the missing pairs as `best` and `worst` for the candidate

    @property
    def is_overturned(self) -> bool:
        """Whether the missing pairs could change the verdict."""
        return any(verdict is not self.observed for verdict in self.bounds.values())

    @property
    def verdict(self) -> Verdict:
        """The verdict."""
        return Verdict.UNDECIDED if self.is_overturned else self.observed


def compare(records: Records) -> tuple[Result, ...]:
    """Test every comparison entry on every target, or on its loss, in the order of the YAML.

    Costs are in units of the entry's axis. A test without a complete pair has p = 1 and counts in
    Holm's correction (Holm, 1979). Missing pairs are filled in as best and as worst for the
    candidate, beside the other tests as observed; a verdict that either changes is undecided.

    Raises ValueError for a target whose metric the curves do not have.
    """
    records = records.in_order()
    return tuple(result_of(judged, records) for judged in judge(tested(records), records.alpha))


def tested(records: Records) -> tuple[Test, ...]:
    """Make every test of an ablation, in order."""
    return tuple(
        test(records, entry, target)
        for entry, target in tests_of(records.comparisons, records.targets)
    )


def test(records: Records, entry: Comparison, target: Target | None) -> Test:
    """Pair the runs of one entry and test them."""
    pairs = pair(records, entry, target)
    effects = pairs.effects()
    return Test(
        entry=entry,
        target=target,
        pairs=pairs,
        effect=sign_flip(effects, alpha=records.alpha),
        p_equivalence=equivalence(effects, pairs, entry.margin),
    )


test.__test__ = False  # type: ignore[attr-defined]


def judge(tests: Sequence[Test], alpha: float) -> tuple[Judged, ...]:
    """Correct the tests of one ablation for their number, and give each its verdict."""
    return tuple(judge_one(tests, place, alpha) for place in range(len(tests)))


def judge_one(tests: Sequence[Test], place: int, alpha: float) -> Judged:
    """Give one test among all tests of its ablation its verdict."""
    one = tests[place]
    p = [test.effect.p for test in tests]
    p_equivalence = [test.p_equivalence for test in tests]
    p_holm, same_holm = holm(p)[place], holm(p_equivalence)[place]
    observed = _verdict(one.effect.mean, p_holm, same_holm, alpha, enough=one.enough_hits)
    decided = observed is not Verdict.UNDECIDED
    bounds = _bounds(one, p, p_equivalence, place, alpha) if decided else {}
    return Judged(one, p_holm, same_holm, observed, bounds)


def to_table(results: Sequence[Result]) -> pd.DataFrame:
    """Lay out the results as comparisons.parquet: a row each, its flags joined by `; `."""
    columns = [field.name for field in fields(Result)]
    return pd.DataFrame([result.to_row() for result in results], columns=columns)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm, 1979); NaN is no test, and stays.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, least = [math.nan] * len(p), 0.0
    order = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
    for done, (value, place) in enumerate(order):
        least = max(least, min(1.0, (len(order) - done) * value))
        corrected[place] = least
    return corrected


def result_of(judged: Judged, records: Records) -> Result:
    """Say everything that is known of a judged test."""
    one, alpha = judged.test, records.alpha
    level = alpha / len(tests_of(records.comparisons, records.targets))
    numbers = _numbers(one, alpha)
    undecided = judged.observed is Verdict.UNDECIDED
    seeds = math.nan
    if undecided and one.pairs.are_ratios:
        margin = one.entry.margin or math.nan
        seeds = seeds_to_decide(
            one.effect.mean,
            numbers["log_ratio_sd"],
            level,
            margin if one.enough_hits else math.nan,
            more_than=one.effect.n,
        )
    return Result(
        **numbers,
        alpha=alpha,
        p=one.effect.p,
        p_holm=judged.p_holm,
        tests=len(tests_of(records.comparisons, records.targets)),
        p_equivalence=one.p_equivalence,
        p_equivalence_holm=judged.p_equivalence_holm,
        verdict=judged.verdict,
        seeds_to_decide=seeds,
        flags=_flags(judged, records),
    )


def _verdict(
    mean: float, p_holm: float, same_holm: float, alpha: float, *, enough: bool
) -> Verdict:
    if p_holm <= alpha:
        return Verdict.BETTER if mean < 0 else Verdict.WORSE
    return Verdict.EQUIVALENT if enough and same_holm <= alpha else Verdict.UNDECIDED


def _bounds(
    one: Test, p: Sequence[float], p_equivalence: Sequence[float], place: int, alpha: float
) -> dict[str, Verdict]:
    """Judge a test again with its missing pairs as best and as worst for the candidate.

    For `equivalent` a missing run may also have missed: it is no hit.
    """
    if len(one.pairs) == one.effect.n:
        return {}
    enough = min(one.hits) >= LEAST_HITS * len(one.pairs)
    bounds = {}
    for name, best in (("best", True), ("worst", False)):
        effects = one.pairs.bound(best=best)
        filled = sign_flip(effects, alpha=alpha)
        same = equivalence(effects, one.pairs, one.entry.margin)
        p_holm = holm([*p[:place], filled.p, *p[place + 1 :]])[place]
        same_holm = holm([*p_equivalence[:place], same, *p_equivalence[place + 1 :]])[place]
        bounds[name] = _verdict(filled.mean, p_holm, same_holm, alpha, enough=enough)
    return bounds


def _flags(judged: Judged, records: Records) -> tuple[str, ...]:
    """Everything that a reader must know beside the number."""
    one, alpha = judged.test, records.alpha
    entry, pairs, verdict = one.entry, one.pairs, judged.observed
    sides = entry.candidate, entry.baseline
    tests = len(tests_of(records.comparisons, records.targets))
    few = verdict is Verdict.UNDECIDED
    return (
        *flags.missing_pairs(pairs, entry),
        *(flags.overturned(entry, verdict, judged.bounds) if judged.is_overturned else ()),
        *(flags.too_few_pairs(_untied(one), alpha, tests) if few else ()),
        *flags.margin(
            entry, verdict, one.effect, one.hits, pairs, judged.p_equivalence_holm, alpha
        ),
        *(
            flags.costs(pairs, entry, records.budget_of(*sides))
            if entry.is_to_target
            else flags.losses(pairs, entry, records.budget_of(*sides))
        ),
        *flags.shared_machine(pairs, entry, records.environments),
        *flags.mixed_hardware(pairs, entry, records.environments),
        *flags.untuned_batch_sizes(entry, records),
        *(
            flags.evaluation_interval(records.evaluate_every_of(*sides))
            if entry.is_to_target
            else ()
        ),
    )


def _untied(one: Test) -> int:
    return int(np.count_nonzero(one.pairs.effects()))


def _numbers(one: Test, alpha: float) -> dict[str, Any]:
    """Collect what a result says of the test itself, before any correction."""
    entry, pairs, ratio = one.entry, one.pairs, one.effect
    differences, logs = pairs.differences(), pairs.log_ratios()
    difference = sign_flip(differences, alpha=alpha)
    candidate, baseline = pairs.complete.sides
    low, high = robustness.bca(logs, alpha=alpha) if pairs.are_ratios else (math.nan, math.nan)
    center = ratio if pairs.are_ratios else SignFlip(ratio.n, math.nan, 1.0, math.nan, math.nan)
    hits = one.hits
    return {
        "name": entry.name,
        "candidate": entry.candidate,
        "baseline": entry.baseline,
        "estimand": entry.estimand,
        "target": one.target.label if one.target else "",
        "horizon": pairs.horizon.value,
        "planned": len(pairs),
        "pairs": len(differences),
        "untied": _untied(one),
        "candidate_hits": hits[0],
        "baseline_hits": hits[1],
        "candidate_mean": float(candidate["cost"].mean()),
        "baseline_mean": float(baseline["cost"].mean()),
        "wins": int((differences < 0).sum()),
        "ties": int((differences == 0).sum()),
        "losses": int((differences > 0).sum()),
        "ratio": _exp(center.mean),
        "ratio_low": _exp(center.low),
        "ratio_high": _exp(center.high),
        "ratio_bca_low": _exp(low),
        "ratio_bca_high": _exp(high),
        "log_ratio_sd": float(np.std(logs, ddof=1)) if len(logs) > 1 else math.nan,
        "difference": difference.mean,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "win_probability": robustness.win_probability(differences),
        "rank_biserial": robustness.rank_biserial(pairs.effects()),
        "p_wilcoxon": robustness.wilcoxon(pairs.effects()),
        "p_sign": robustness.sign_test(differences),
        "p_mcnemar": robustness.mcnemar_test(candidate["hit"], baseline["hit"])
        if entry.is_to_target
        else 1.0,
        "margin": math.nan if entry.margin is None else entry.margin,
    }


def _exp(value: float) -> float:
    """The ratio of a log ratio; beyond the range of numbers it is infinite."""
    return math.inf if value > 700 else math.exp(value)

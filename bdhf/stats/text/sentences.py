"""A comparison as one sentence that a reviewer can check against the numbers."""

from __future__ import annotations

import math

from bdhf.stats.inference.equivalence import LEAST_HITS
from bdhf.stats.inference.power import MOST_SEEDS
from bdhf.stats.result import Result, Verdict
from bdhf.text.formatting import (
    cost,
    p_in_a_sentence,
    percent,
    plain_count,
    plain_p,
    ratio,
    seeds_in_a_sentence,
    three_digits,
)

#: First words of the flag of a verdict that runs of other tests could change through Holm.
OF_OTHERS = "The verdict depends on runs of other tests"

#: First words of the flag of a verdict that evaluation intervals of unequal cost could change.
OF_EVALUATIONS = "The verdict depends on when the target was reached between evaluations"


def sentence(result: Result) -> str:
    """State what was compared, the effect, its uncertainty, and the verdict.

    For example: block_hf needed 0.71× the updates of full_hf to reach val_loss ≤ 0.02 (95 %
    interval 0.62 to 0.83; p = 0.008, after Holm over 3 tests 0.023; 8 of 8 pairs) → better
    """
    return f"{_finding(result)} → {_verdict(result)}"


def _finding(result: Result) -> str:
    arms = f"{result.candidate} and {result.baseline}"
    pairs = f"{result.pairs} of {plain_count(result.planned, 'pair')}"
    on = result.target or result.unit
    if result.pairs == 0:
        return (
            f"{arms} cannot be compared on {on}: {pairs} "
            f"{'has' if result.planned == 1 else 'have'} an outcome on both sides"
        )
    if not result.is_to_target:
        return _loss(result, arms, pairs)
    if result.candidate_hits == result.baseline_hits == 0:
        within = f"{cost(result.horizon)} {result.unit}"
        return f"{arms} never reached {result.target} within {within} ({pairs})"
    if result.ties == result.pairs:
        tied = f"{pairs}, all tied{_misses(result)}"
        return f"{arms} needed the same number of {result.unit} to reach {result.target} ({tied})"
    evidence = f"{_evidence(result)}; {pairs}{_misses(result)}"
    return (
        f"{result.candidate} needed {ratio(result.ratio)}× the {result.unit} of "
        f"{result.baseline} to reach {result.target} ({evidence})"
    )


def _loss(result: Result, arms: str, pairs: str) -> str:
    if result.ties == result.pairs:
        return f"{arms} had the same {result.unit} ({pairs}, all tied)"
    if not math.isnan(result.ratio):
        evidence = f"{_evidence(result)}; {pairs}"
        return (
            f"{result.candidate} had a {result.unit} {ratio(result.ratio)}× that of "
            f"{result.baseline} ({evidence})"
        )
    low, high = result.difference_low, result.difference_high
    more = "above" if result.difference > 0 else "below"
    level, p = f"{percent(1 - result.alpha)} interval", _p_values(result)
    interval = (
        f"no {level}, too few pairs"
        if math.isinf(high)
        else f"{level} {three_digits(low)} to {three_digits(high)}"
    )
    return (
        f"{result.candidate} was {three_digits(abs(result.difference))} {more} {result.baseline} "
        f"in {result.unit} ({interval}; {p}; {pairs})"
    )


def _verdict(result: Result) -> str:
    enough = min(result.candidate_hits, result.baseline_hits) >= LEAST_HITS * result.pairs
    decided = result.p_holm <= result.alpha or (
        result.p_equivalence_holm <= result.alpha and enough
    )
    if result.verdict is Verdict.EQUIVALENT:
        p = p_in_a_sentence(result.p_equivalence_holm, result.alpha)
        return f"{result.verdict} within {result.margin:g}× (p {p})"
    if result.verdict is Verdict.UNDECIDED and decided:
        missing = result.pairs < result.planned
        what = "the missing pairs" if missing else "the cost of diverged runs"
        if any(flag.startswith(OF_OTHERS) for flag in result.flags):
            what = "uncertain runs of other tests"
        if any(flag.startswith(OF_EVALUATIONS) for flag in result.flags):
            what = "evaluation intervals of unequal cost"
        return f"{result.verdict}: {what} could change the verdict"
    if result.verdict is Verdict.UNDECIDED and not math.isnan(result.seeds_to_decide):
        return f"{result.verdict}; {seeds_in_a_sentence(result.seeds_to_decide, MOST_SEEDS)}"
    return str(result.verdict)


def _evidence(result: Result) -> str:
    level = f"{percent(1 - result.alpha)} interval"
    if math.isinf(result.ratio_high):
        interval = f"no {level}, too few pairs"
    else:
        interval = f"{level} {ratio(result.ratio_low)} to {ratio(result.ratio_high)}"
    return f"{interval}; {_p_values(result)}"


def _p_values(result: Result) -> str:
    p = f"p {p_in_a_sentence(result.p, result.alpha)}"
    if result.tests > 1:
        corrected = plain_p(result.p_holm, result.alpha)
        p += f", after Holm over {result.tests} tests {corrected}"
    return p


def _misses(result: Result) -> str:
    if result.candidate_hits == result.baseline_hits == result.pairs:
        return ""
    return f"; a miss counts as {cost(result.horizon)}"

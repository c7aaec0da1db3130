"""A comparison as one sentence, in words that a reviewer can check against the numbers.

Rounding never changes what a number says: a p or a limit on one side of its mark (alpha, a ratio of
1) is printed with as many digits as it takes to stay on that side.
"""

from __future__ import annotations

import math
import unicodedata

from bdhf.stats.inference.equivalence import LEAST_HITS
from bdhf.stats.inference.power import MOST_SEEDS
from bdhf.stats.result import Result, Verdict

#: How the flag of a verdict begins that runs of other tests could change through Holm.
OF_OTHERS = "The verdict hangs on runs of other tests"

#: How that begins which evaluations could change that cost one arm more than the other.
OF_EVALUATIONS = "The verdict hangs on when between evaluations the target was reached"


def sentence(result: Result) -> str:
    """Say what was compared, by how much it differs, how sure that is, and the verdict.

    For example: block_hf needed 0.71× the updates of full_hf to reach val_loss ≤ 0.02 (95 %
    interval 0.62 to 0.83; p = 0.008, after Holm over 3 tests 0.023; 8 of 8 pairs) → better
    """
    return f"{_finding(result)} → {_verdict(result)}"


def number(value: float) -> str:
    """Write a cost with four significant digits, and whole numbers whole.

    >>> number(300.0), number(41.23456), number(12345.6)
    ('300', '41.23', '12346')
    """
    whole = value.is_integer() or abs(value) >= 1000
    return f"{value:.0f}" if whole else f"{value:.4g}"


def on_a_line(text: str) -> str:
    r"""Text with spaces for line breaks and tabs, without other characters that are not shown.

    >>> on_a_line("a\nb\x1b[2K")
    'a b[2K'
    """
    spaced = (" " if c.isspace() else c for c in text)
    return "".join(c for c in spaced if not unicodedata.category(c).startswith("C"))


def count(k: int, noun: str) -> str:
    """Write a number of things.

    >>> count(1, "pair"), count(3, "pair")
    ('1 pair', '3 pairs')
    """
    return f"{k} {noun}" if k == 1 else f"{k} {noun}s"


def _finding(result: Result) -> str:
    arms = f"{result.candidate} and {result.baseline}"
    pairs = f"{result.pairs} of {count(result.planned, 'pair')}"
    on = result.target or result.unit
    if result.pairs == 0:
        return (
            f"{arms} cannot be compared on {on}: {pairs} "
            f"{'has' if result.planned == 1 else 'have'} an outcome on both sides"
        )
    if not result.is_to_target:
        return _loss(result, arms, pairs)
    if result.candidate_hits == result.baseline_hits == 0:
        within = f"{number(result.horizon)} {result.unit}"
        return f"{arms} never reached {result.target} within {within} ({pairs})"
    if result.ties == result.pairs:
        tied = f"{pairs}, all tied{_misses(result)}"
        return f"{arms} needed equally many {result.unit} to reach {result.target} ({tied})"
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
    more = "above" if result.difference > 0 else "below"
    level, p = f"{100 * (1 - result.alpha):g} % interval", _p_values(result)
    interval = (
        f"no {level}, too few pairs"
        if math.isinf(result.difference_high)
        else f"{level} {result.difference_low:.3g} to {result.difference_high:.3g}"
    )
    return (
        f"{result.candidate} was {abs(result.difference):.3g} {more} {result.baseline} in "
        f"{result.unit} ({interval}; {p}; {pairs})"
    )


def _verdict(result: Result) -> str:
    enough = min(result.candidate_hits, result.baseline_hits) >= LEAST_HITS * result.pairs
    decided = result.p_holm <= result.alpha or (
        result.p_equivalence_holm <= result.alpha and enough
    )
    if result.verdict is Verdict.EQUIVALENT:
        p = p_value(result.p_equivalence_holm, result.alpha)
        return f"{result.verdict} within {result.margin:g}× (p {p})"
    if result.verdict is Verdict.UNDECIDED and decided:
        missing = result.pairs < result.planned
        what = "the missing pairs" if missing else "what a diverged run counts as"
        if any(flag.startswith(OF_OTHERS) for flag in result.flags):
            what = "what is open in other tests"
        if any(flag.startswith(OF_EVALUATIONS) for flag in result.flags):
            what = "evaluations that cost the arms differently"
        return f"{result.verdict}: {what} could overturn it"
    if result.verdict is Verdict.UNDECIDED and not math.isnan(result.seeds_to_decide):
        return f"{result.verdict}; {seeds(result.seeds_to_decide)}"
    return str(result.verdict)


def seeds(number_of: float) -> str:
    """What it would take to decide, were effect and spread as they were seen.

    >>> seeds(23.0), seeds(math.inf)
    ('about 23 seeds would decide', 'no number of seeds up to 10,000 would decide')
    """
    if math.isinf(number_of):
        return f"no number of seeds up to {MOST_SEEDS:,} would decide"
    return f"about {number_of:.0f} seeds would decide"


def _evidence(result: Result) -> str:
    level = f"{100 * (1 - result.alpha):g} % interval"
    if math.isinf(result.ratio_high):
        interval = f"no {level}, too few pairs"
    else:
        interval = f"{level} {ratio(result.ratio_low)} to {ratio(result.ratio_high)}"
    return f"{interval}; {_p_values(result)}"


def _p_values(result: Result) -> str:
    p = f"p {p_value(result.p, result.alpha)}"
    if result.tests > 1:
        corrected = p_value(result.p_holm, result.alpha).removeprefix("= ")
        p += f", after Holm over {result.tests} tests {corrected}"
    return p


def _misses(result: Result) -> str:
    if result.candidate_hits == result.baseline_hits == result.pairs:
        return ""
    return f"; a miss counts as {number(result.horizon)}"


def p_value(p: float, alpha: float) -> str:
    """A p-value with three decimals, or as many as show on which side of alpha it lies.

    >>> p_value(0.0078125, 0.05), p_value(1e-5, 0.05), p_value(float("nan"), 0.05)
    ('= 0.008', '< 0.001', '–')
    """
    if math.isnan(p):
        return "–"
    if p < min(0.001, alpha):
        return "< 0.001"
    return "= 1" if p == 1 else f"= {_beside(p, alpha, digits=3)}"


def ratio(value: float) -> str:
    """A ratio with two decimals, or as many as show on which side of 1 it lies.

    >>> ratio(0.714), ratio(0.9998), ratio(0.0123)
    ('0.71', '0.9998', '0.012')
    >>> ratio(0.0), ratio(1e-9), ratio(2.5e7), ratio(math.inf)
    ('0', '1e-09', '2.5e+07', '∞')
    """
    if math.isinf(value) or value == 0:
        return "∞" if value else "0"
    if not 1e-4 <= value < 1e6:
        return f"{value:.3g}"
    digits = 2 if value >= 0.1 else 1 - math.floor(math.log10(value))
    return _beside(value, 1.0, digits)


def _beside(value: float, mark: float, digits: int) -> str:
    """Round, with more digits where fewer would move the value to or across the mark."""
    for more in range(digits, 12):
        if _side(round(value, more), mark) == _side(value, mark):
            return f"{value:.{more}f}"
    return f"{value:.{digits}f}"  # equal to the mark but for a rounding error


def _side(value: float, mark: float) -> int:
    return (value > mark) - (value < mark)

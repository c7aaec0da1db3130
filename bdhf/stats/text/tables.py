"""Results as tables in words, for a terminal; `latex.py` writes them for a paper."""

from __future__ import annotations

import math

from bdhf.stats.inference.power import MOST_SEEDS
from bdhf.stats.result import Result
from bdhf.text.formatting import (
    NONE,
    cost,
    p_in_a_sentence,
    percent,
    plain_count,
    plain_p,
    ratio,
    seeds_in_a_sentence,
    short,
    three_digits,
)
from bdhf.text.printable import stripped_line


def rows(result: Result) -> list[tuple[str, str]]:
    """Name and value of every number of a comparison, in words, each on one line.

    Values of costs are in units of the estimand's axis.
    """
    arms = result.candidate, result.baseline
    means = zip(arms, (result.candidate_mean, result.baseline_mean), strict=True)
    corrected = plain_p(result.p_holm, result.alpha)
    table = [
        ("measured", result.question),
        ("ratio", f"{ratio(result.ratio)} (candidate ÷ baseline, geometric mean over pairs)"),
        ("interval", _interval(result, result.ratio_low, result.ratio_high)),
        ("BCa interval", _interval(result, result.ratio_bca_low, result.ratio_bca_high)),
        ("means", "; ".join(f"{arm} {cost(mean)}" for arm, mean in means)),
        ("difference", _difference(result)),
        ("p", f"{plain_p(result.p, result.alpha)} (sign-flip test)"),
        ("p after Holm", f"{corrected} (over {plain_count(result.tests, 'test')})"),
        ("other tests", _others(result)),
        ("pairs", f"{result.pairs} of {result.planned}, {result.untied} of them untied"),
        ("win / tie / loss", f"{result.wins} / {result.ties} / {result.losses}"),
        ("win probability", three_digits(result.win_probability)),
        ("rank-biserial", three_digits(result.rank_biserial)),
        ("equivalence", _equivalence(result)),
        ("spread", f"standard deviation of the log ratio {three_digits(result.log_ratio_sd)}"),
    ]
    if result.is_to_target:
        hits = zip(arms, (result.candidate_hits, result.baseline_hits), strict=True)
        reached = "; ".join(f"{arm} {k} of {result.pairs}" for arm, k in hits)
        table.insert(1, ("reached", reached))
    if not math.isnan(result.seeds_to_decide):
        enough = seeds_in_a_sentence(result.seeds_to_decide, MOST_SEEDS)
        table.append(("to decide", f"{enough} (80 % power for this effect)"))
    return [(name, stripped_line(value)) for name, value in table]


def _interval(result: Result, low: float, high: float) -> str:
    if result.pairs and math.isnan(result.ratio):
        return f"{NONE} (not every value is positive, so no ratio exists)"
    if math.isnan(high):
        return f"{NONE} (all pairs tie, or they are too few)"
    if math.isinf(high):
        return f"{NONE} (too few pairs)"
    return f"{ratio(low)} to {ratio(high)} ({percent(1 - result.alpha)})"


def _difference(result: Result) -> str:
    if math.isnan(result.difference):
        return NONE
    limits = f"{short(result.difference_low)} to {short(result.difference_high)}"
    is_bounded = math.isfinite(result.difference_high)
    return f"{short(result.difference)} {result.unit}" + (f" ({limits})" if is_bounded else "")


def _others(result: Result) -> str:
    p_values = {"Wilcoxon–Pratt": result.p_wilcoxon, "sign": result.p_sign}
    if result.is_to_target:
        p_values["McNemar on reached"] = result.p_mcnemar
    words = (f"{name} p {p_in_a_sentence(p, result.alpha)}" for name, p in p_values.items())
    return "; ".join(words)


def _equivalence(result: Result) -> str:
    if math.isnan(result.margin):
        return f"{NONE} (the spec sets no margin)"
    p = plain_p(result.p_equivalence, result.alpha)
    corrected = plain_p(result.p_equivalence_holm, result.alpha)
    return f"within {result.margin:g}×: p {p}, after Holm {corrected} (two one-sided tests)"

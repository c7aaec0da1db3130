"""Results as tables in words, for a terminal; `latex.py` has them for a paper."""

from __future__ import annotations

import math

from bdhf.stats.result import Result
from bdhf.stats.text.sentences import count, number, on_a_line, p_value, ratio, seeds

#: What stands where there is no number.
NONE = "–"


def rows(result: Result) -> list[tuple[str, str]]:
    """Name and value of everything that one comparison says, in words, each on one line.

    Values of costs are in units of the estimand's axis.
    """
    arms = result.candidate, result.baseline
    means = zip(arms, (result.candidate_mean, result.baseline_mean), strict=True)
    found = [
        ("measured", result.question),
        ("ratio", f"{_ratio(result.ratio)} (candidate ÷ baseline, geometric mean over pairs)"),
        ("interval", _interval(result, result.ratio_low, result.ratio_high)),
        ("BCa interval", _interval(result, result.ratio_bca_low, result.ratio_bca_high)),
        ("means", "; ".join(f"{arm} {_value(mean)}" for arm, mean in means)),
        ("difference", _difference(result)),
        ("p", f"{_p(result.p, result)} (sign-flip test)"),
        ("p after Holm", f"{_p(result.p_holm, result)} (over {count(result.tests, 'test')})"),
        ("other tests", _others(result)),
        ("pairs", f"{result.pairs} of {result.planned}, {result.untied} of them untied"),
        ("win / tie / loss", f"{result.wins} / {result.ties} / {result.losses}"),
        ("win probability", _plain(result.win_probability)),
        ("rank-biserial", _plain(result.rank_biserial)),
        ("equivalence", _equivalence(result)),
        ("spread", f"standard deviation of the log ratio {_plain(result.log_ratio_sd)}"),
    ]
    if result.is_to_target:
        hits = zip(arms, (result.candidate_hits, result.baseline_hits), strict=True)
        reached = "; ".join(f"{arm} {k} of {result.pairs}" for arm, k in hits)
        found.insert(1, ("reached", reached))
    if not math.isnan(result.seeds_to_decide):
        found.append(("to decide", f"{seeds(result.seeds_to_decide)} (80 % power for this effect)"))
    return [(name, on_a_line(value)) for name, value in found]


def _ratio(value: float) -> str:
    return NONE if math.isnan(value) else ratio(value)


def _value(value: float) -> str:
    return NONE if math.isnan(value) else number(value)


def _plain(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:.3g}"


def _interval(result: Result, low: float, high: float) -> str:
    if result.pairs and math.isnan(result.ratio):
        return f"{NONE} (not every value is above 0, so there is no ratio)"
    if math.isnan(high):
        return f"{NONE} (the pairs do not differ, or are too few)"
    if math.isinf(high):
        return f"{NONE} (too few pairs)"
    return f"{_ratio(low)} to {_ratio(high)} ({100 * (1 - result.alpha):g} %)"


def _difference(result: Result) -> str:
    if math.isnan(result.difference):
        return NONE
    limits = f"{result.difference_low:.4g} to {result.difference_high:.4g}"
    known = math.isfinite(result.difference_high)
    return f"{result.difference:.4g} {result.unit}" + (f" ({limits})" if known else "")


def _p(p: float, result: Result) -> str:
    return p_value(p, result.alpha).removeprefix("= ")


def _others(result: Result) -> str:
    found = {"Wilcoxon–Pratt": result.p_wilcoxon, "sign": result.p_sign}
    if result.is_to_target:
        found["McNemar on reached"] = result.p_mcnemar
    return "; ".join(f"{name} p {p_value(p, result.alpha)}" for name, p in found.items())


def _equivalence(result: Result) -> str:
    if math.isnan(result.margin):
        return f"{NONE} (the spec names no margin)"
    p, corrected = _p(result.p_equivalence, result), _p(result.p_equivalence_holm, result)
    return f"within {result.margin:g}×: p {p}, after Holm {corrected} (two one-sided tests)"

"""Records -> results: one paired test per comparison entry × target, corrected together.

    p        sign-flip test of the mean log ratio of restricted costs, candidate ÷ baseline
    p_holm   p after Holm's step-down over all tests of the ablation
    verdict  better or worse, by the sign of the mean, if p_holm ≤ alpha; otherwise undecided

The interval of the ratio inverts the very test that gives p, so it excludes 1 exactly when
p ≤ alpha. A verdict that the missing pairs could change is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from bdhf.records import Comparison, Records, Target
from bdhf.stats import flags
from bdhf.stats.paired import SignFlip, sign_flip
from bdhf.stats.pairs import Pairs, pair
from bdhf.stats.result import Result, Verdict


@dataclass(frozen=True)
class _Test:
    entry: Comparison
    target: Target
    pairs: Pairs
    ratio: SignFlip  # of the log ratios
    difference: SignFlip


def compare(records: Records) -> tuple[Result, ...]:
    """Test every comparison entry on every target, in the order of the YAML.

    Costs are in units of the entry's axis. A test without a complete pair has p = 1 and counts in
    Holm's correction (Holm, 1979). Missing pairs are filled in as best and as worst for the
    candidate, beside the other tests as observed; a verdict that either changes is undecided.

    Raises ValueError for a target whose metric the curves do not have.
    """
    tests = [_test(records, entry, t) for entry in records.comparisons for t in records.targets]
    p = [test.ratio.p for test in tests]
    corrected = zip(tests, holm(p), strict=True)
    return tuple(
        _judge(test, p_holm, p, place, records) for place, (test, p_holm) in enumerate(corrected)
    )


def to_table(results: Sequence[Result]) -> pd.DataFrame:
    """Lay out the results as comparisons.parquet: a row each, its flags joined by `; `."""
    columns = [field.name for field in fields(Result)]
    return pd.DataFrame([result.to_row() for result in results], columns=columns)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    return [float(corrected) for corrected in multipletests(p, method="holm")[1]] if p else []


def _test(records: Records, entry: Comparison, target: Target) -> _Test:
    pairs = pair(records, entry.candidate, entry.baseline, target, entry.axis)
    ratio = sign_flip(pairs.log_ratios(), alpha=records.alpha)
    difference = sign_flip(pairs.differences(), alpha=records.alpha)
    return _Test(entry, target, pairs, ratio, difference)


def _judge(test: _Test, p_holm: float, p: Sequence[float], place: int, records: Records) -> Result:
    """Turn one test into a result, given the p-values of all tests and its place among them."""
    alpha, sides = records.alpha, (test.entry.candidate, test.entry.baseline)
    observed = _verdict(test.ratio, p_holm, alpha)
    bounds = _bounds(test, p, place, alpha) if observed is not Verdict.UNDECIDED else {}
    overturned = any(verdict is not observed for verdict in bounds.values())
    return Result(
        **_numbers(test),
        alpha=alpha,
        p=test.ratio.p,
        p_holm=p_holm,
        tests=len(p),
        verdict=Verdict.UNDECIDED if overturned else observed,
        flags=(
            *flags.missing_pairs(test.pairs, test.entry),
            *(flags.overturned(test.entry, observed, bounds) if overturned else ()),
            *(_too_few(test, alpha, len(p)) if observed is Verdict.UNDECIDED else ()),
            *flags.costs(test.pairs, test.entry, records.budget_of(*sides)),
            *flags.shared_machine(test.pairs, test.entry, records.environments),
            *flags.evaluation_interval(records.evaluate_every_of(*sides)),
        ),
    )


def _verdict(ratio: SignFlip, p_holm: float, alpha: float) -> Verdict:
    if p_holm > alpha:
        return Verdict.UNDECIDED
    return Verdict.BETTER if ratio.mean < 0 else Verdict.WORSE


def _bounds(test: _Test, p: Sequence[float], place: int, alpha: float) -> dict[str, Verdict]:
    """Judge a test again with its missing pairs as best and as worst for the candidate."""
    if len(test.pairs) == test.ratio.n:
        return {}
    bounds = {}
    for name, best in (("best", True), ("worst", False)):
        filled = sign_flip(test.pairs.bound(best=best), alpha=alpha)
        p_holm = holm([*p[:place], filled.p, *p[place + 1 :]])[place]
        bounds[name] = _verdict(filled, p_holm, alpha)
    return bounds


def _too_few(test: _Test, alpha: float, tests: int) -> tuple[str, ...]:
    return flags.too_few_pairs(int(np.count_nonzero(test.pairs.log_ratios())), alpha, tests)


def _numbers(test: _Test) -> dict[str, Any]:
    """Collect what a result says of the test itself, before any correction."""
    entry, difference = test.entry, test.pairs.differences()
    candidate, baseline = test.pairs.complete.sides
    return {
        "name": entry.name,
        "candidate": entry.candidate,
        "baseline": entry.baseline,
        "axis": entry.axis,
        "target": test.target.label,
        "horizon": test.pairs.horizon.value,
        "planned": len(test.pairs),
        "pairs": len(difference),
        "candidate_hits": int(candidate["hit"].sum()),
        "baseline_hits": int(baseline["hit"].sum()),
        "candidate_mean": float(candidate["cost"].mean()),
        "baseline_mean": float(baseline["cost"].mean()),
        "wins": int((difference < 0).sum()),
        "ties": int((difference == 0).sum()),
        "losses": int((difference > 0).sum()),
        "ratio": math.exp(test.ratio.mean),
        "ratio_low": math.exp(test.ratio.low),
        "ratio_high": math.exp(test.ratio.high),
        "difference": test.difference.mean,
        "difference_low": test.difference.low,
        "difference_high": test.difference.high,
    }

"""Records -> results: every comparison entry × target with its estimates, tests and caveats.

The verdict and its p-values are those of `judge.py`. The interval of the ratio inverts the test
that gives p, so it excludes 1 exactly when p ≤ alpha. The other tests do not affect the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bdhf.records import Records
from bdhf.stats.caveats import flags, open_costs, rises, tuning
from bdhf.stats.caveats.overturned import overturned
from bdhf.stats.caveats.surroundings import surroundings
from bdhf.stats.caveats.twins import shared_runs
from bdhf.stats.caveats.untrained import met_before_training
from bdhf.stats.inference import robustness
from bdhf.stats.inference.paired import SignFlip, sign_flip
from bdhf.stats.inference.power import seeds_to_decide
from bdhf.stats.judge import HypothesisTest, Judged, judge, tested
from bdhf.stats.result import Result, Verdict
from bdhf.stats.table import table_of


def compare(records: Records) -> tuple[Result, ...]:
    """Test every comparison entry on every target, or on its loss, in the order of the YAML.

    Costs are in units of the entry's axis. A test without a complete pair has p = 1 and counts in
    Holm's correction (Holm, 1979). Missing pairs are imputed as best and as worst for the
    candidate, with the other tests as observed and with the largest p that their missing pairs
    allow; a verdict that any of these changes is undecided.

    Raises ValueError for a target whose metric the curves do not have.
    """
    records = records.in_order()
    return tuple(result_of(judged, records) for judged in judge(tested(records), records.alpha))


def to_table(results: Sequence[Result]) -> pd.DataFrame:
    """Lay out the results as comparisons.parquet: a row each, its flags joined by `; `."""
    return table_of(Result, [result.to_row() for result in results])


def result_of(judged: Judged, records: Records) -> Result:
    """Make the result of a judged test: numbers, verdict and flags."""
    test, alpha = judged.test, records.alpha
    numbers = _numbers(test, alpha)
    undecided = judged.observed is Verdict.UNDECIDED
    seeds = math.nan
    if undecided and test.pairs.are_ratios:
        margin = test.entry.margin or math.nan
        seeds = seeds_to_decide(
            test.effect.mean,
            numbers["log_ratio_sd"],
            alpha / judged.tests,
            margin if test.enough_hits else math.nan,
            farthest=_farthest(test),
            more_than=test.effect.n,
        )
    return Result(
        **numbers,
        alpha=alpha,
        p=test.effect.p,
        p_holm=judged.p_holm,
        tests=judged.tests,
        p_equivalence=test.p_equivalence,
        p_equivalence_holm=judged.p_equivalence_holm,
        verdict=judged.verdict,
        seeds_to_decide=seeds,
        flags=_flags(judged, records),
    )


def _flags(judged: Judged, records: Records) -> tuple[str, ...]:
    """All caveats of a test."""
    test, alpha = judged.test, records.alpha
    entry, pairs, verdict = test.entry, test.pairs, judged.observed
    sides = entry.candidate, entry.baseline
    few = verdict is Verdict.UNDECIDED
    return (
        *flags.missing_pairs(pairs, entry),
        *shared_runs(records, entry),
        *(
            overturned(pairs, entry, verdict, judged.bounds, judged.others)
            if judged.is_overturned
            else ()
        ),
        *(flags.too_few_pairs(_untied(test), test.effect.n, alpha, judged.tests) if few else ()),
        *flags.margin(
            entry, verdict, test.effect, test.hits, pairs, judged.p_equivalence_holm, alpha
        ),
        *(
            (
                *flags.cost_flags(pairs, entry, records.budget_of(*sides)),
                *open_costs.missing_costs(pairs, entry, records.budget_of(*sides)),
                *(open_costs.coarse(pairs, entry, test.p_equivalence, alpha) if few else ()),
                *open_costs.unequal(pairs, entry, verdict),
            )
            if entry.is_to_target
            else flags.loss_flags(pairs, entry, records.budget_of(*sides))
        ),
        *rises.risen(pairs, entry, records),
        *met_before_training(records, entry, test.target, pairs),
        *flags.shared_machine(pairs, entry, records.environments),
        *surroundings(pairs, entry, records.environments),
        *tuning.caveats(entry, records),
        *(
            flags.evaluation_interval(records.evaluate_every_of(*sides))
            if entry.is_to_target
            else ()
        ),
    )


def _farthest(test: HypothesisTest) -> float:
    """The largest distance from 0 of the mean log ratio that the evaluations allow."""
    low, high = test.pairs.box()
    return max(abs(float(low.mean())), abs(float(high.mean()))) if len(low) else math.nan


def _untied(test: HypothesisTest) -> int:
    return int(np.count_nonzero(test.pairs.effects()))


def _numbers(test: HypothesisTest, alpha: float) -> dict[str, Any]:
    """Collect the numbers of the test itself, before any correction."""
    entry, pairs, ratio = test.entry, test.pairs, test.effect
    differences, logs = pairs.differences(), pairs.log_ratios()
    difference = sign_flip(differences, alpha=alpha)
    candidate, baseline = pairs.complete.sides
    low, high = robustness.bca(logs, alpha=alpha) if pairs.are_ratios else (math.nan, math.nan)
    center = ratio if pairs.are_ratios else SignFlip(ratio.n, math.nan, 1.0, math.nan, math.nan)
    hits = test.hits
    return {
        "name": entry.name,
        "candidate": entry.candidate,
        "baseline": entry.baseline,
        "estimand": entry.estimand,
        "target": test.target.label if test.target else "",
        "horizon": pairs.horizon.value,
        "planned": len(pairs),
        "pairs": len(differences),
        "untied": _untied(test),
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
    """The ratio of a log ratio; infinite on overflow."""
    return math.inf if value > 700 else math.exp(value)

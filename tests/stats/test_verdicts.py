"""Each verdict is reached, and only with enough evidence: margins, losses, missing pairs."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from bdhf.records import FAILED, Comparison, Target
from bdhf.stats.caveats.overturned import OF_MISSING_PAIRS
from bdhf.stats.compare import compare
from bdhf.stats.result import Verdict
from tests.stats.synthetic import BLOCK_VS_FULL, TARGET, synthetic

SAME = BLOCK_VS_FULL.model_copy(update={"margin": 1.1})
FULL = [180, 185, 179, 195, 190, 188, 177, 191]
NEAR = [182, 183, 180, 193, 191, 187, 178, 190]  # within 1.2 % of FULL, on both sides of it
FASTER = [175, 179, 175, 190, 184, 184, 172, 186]  # 2 to 3.3 % below FULL on every seed
FAST = [50, 62, 55, 71, 64, 58, 49, 66]


def only(records):
    """The result of an ablation with one test."""
    (result,) = compare(records)
    return result


def versus(block, full, *, entry=SAME, **options):
    """The result of block against full."""
    return only(synthetic({"block": block, "full": full}, comparisons=(entry,), **options))


def flagged(result, text):
    """Whether one of the flags contains this text."""
    return any(text in flag for flag in result.flags)


@pytest.mark.parametrize(
    ("block", "full", "verdict"),
    [
        (FAST, FULL, "better"),
        (FULL, FAST, "worse"),
        (NEAR, FULL, "equivalent"),
        (FAST[::-1], FAST, "undecided"),
    ],
)
def test_each_verdict_is_reached(block, full, verdict):
    """Swapping the arms reverses it."""
    turned = {"better": "worse", "worse": "better"}

    assert versus(block, full).verdict == verdict
    assert versus(full, block).verdict == turned.get(verdict, verdict)


def test_without_a_margin_nothing_is_equivalent():
    """The margin is fixed before the runs, or there is none."""
    result = versus(NEAR, FULL, entry=BLOCK_VS_FULL)

    assert result.verdict is Verdict.UNDECIDED
    assert np.isnan([result.margin, result.p_equivalence, result.p_equivalence_holm]).all()


def test_a_difference_within_the_margin_is_a_difference():
    """Better takes precedence, and a flag reports that the difference is small."""
    result = versus(FASTER, FULL)

    assert result.verdict is Verdict.BETTER
    assert result.p_equivalence <= 0.05
    assert flagged(result, "lies within the margin of 1.1×")
    assert not flagged(versus(FAST, FULL), "margin")


@pytest.mark.parametrize(("n", "verdict"), [(4, "undecided"), (5, "equivalent")])
def test_ties_are_equivalent_only_with_a_margin_and_enough_pairs(n, verdict):
    """Costs that are equal on every seed lie within any margin, once there are 5 pairs.

    Without a margin they are undecided, however many: a test of a difference shows none.
    """
    assert versus(FULL[:n], FULL[:n]).verdict == verdict
    assert versus(FULL[:n], FULL[:n]).p_equivalence == 2.0**-n
    assert versus(FULL[:n], FULL[:n], entry=BLOCK_VS_FULL).verdict == "undecided"


@pytest.mark.parametrize("n", [1, 8])
def test_arms_that_only_miss_are_not_equivalent(n):
    """All runs of both arms are censored: no pair is informative, so equivalence is not shown."""
    result = versus([None] * n, [None] * n)

    assert result.verdict is Verdict.UNDECIDED
    assert (result.p, result.p_equivalence) == (1.0, 1.0)
    assert flagged(result, f"{n} pairs missed on both" if n > 1 else "1 pair missed on both")


def test_pairs_that_both_miss_are_left_out_of_equivalence():
    """The p is that of the other pairs, for any number of ties at the budget."""
    result = versus([*NEAR, None, None], [*FULL, None, None])

    assert result.verdict is Verdict.EQUIVALENT
    assert result.p_equivalence == pytest.approx(versus(NEAR, FULL).p_equivalence)
    assert flagged(result, "2 pairs missed on both sides")


def test_equivalent_takes_hits():
    """Below 80 % hits the verdict is undecided, and the flag names the arm."""
    result = versus([*NEAR, None, None, None], [*FULL, 295, None, None], last=300)
    enough = versus([*NEAR, None, None], [*FULL, None, None], last=300)

    assert result.p_equivalence <= 0.05 < result.p_holm
    assert result.verdict is Verdict.UNDECIDED
    assert flagged(
        result,
        "Not called equivalent: at least 80 % of the runs of both arms must reach the target "
        "(block: 8 of 11)",
    )
    assert (enough.candidate_hits, enough.verdict) == (8, Verdict.EQUIVALENT)


@pytest.mark.parametrize("status", ["oom", "error", "timeout", "skipped", "planned"])
def test_missing_pair_can_overturn_equivalent(status):
    """A run without an outcome may have cost the budget: equivalent becomes undecided."""
    result = versus([*NEAR, status], [*FULL, 180], last=900)

    assert (result.pairs, result.planned) == (8, 9)
    assert result.p_equivalence_holm <= 0.05
    assert result.verdict is Verdict.UNDECIDED
    assert flagged(result, f"{OF_MISSING_PAIRS}: equivalent ")


@pytest.mark.parametrize("status", ["oom", "error", "timeout", "skipped", "planned"])
def test_missing_pair_can_overturn_better(status):
    """And better, where the run may have cost the budget."""
    result = versus([*FASTER[:6], status], [*FULL[:6], 180], entry=BLOCK_VS_FULL)

    assert result.p_holm <= 0.05
    assert result.verdict is Verdict.UNDECIDED
    assert flagged(result, f"{OF_MISSING_PAIRS}: better ")


def test_missing_runs_are_no_hits():
    """Costs that hardly differ within the budget are equivalent only while 80 % are known hits.

    Two missing pairs of ten leave 80 %, three of eleven do not.
    """
    block, full = [v + 800 for v in NEAR], [v + 800 for v in FULL]
    two, three = (versus([*block, *["oom"] * k], [*full, *["oom"] * k], last=1000) for k in (2, 3))

    assert two.verdict is Verdict.EQUIVALENT
    assert three.p_equivalence_holm <= 0.05
    assert three.verdict is Verdict.UNDECIDED
    assert flagged(three, "undecided in the best case for block, undecided in the worst")


@pytest.mark.parametrize("estimand", ["updates_to_target", "seconds_to_target", "final_loss"])
def test_order_of_rows_and_arms_does_not_matter(estimand):
    """Rows of runs, curves and environments, and arms, in reverse: the results are equal."""
    entry = SAME.model_copy(update={"estimand": estimand})
    arms = {"block": [*NEAR[:6], "oom", "diverged"], "full": [*FULL[:7], None]}
    where = pd.DataFrame(
        {"run_id": [f"{arm}-{seed}" for arm in arms for seed in range(8)], "cpu": ["a", "b"] * 8}
    )
    records = dataclasses.replace(synthetic(arms, comparisons=(entry,)), environments=where)
    turned = dataclasses.replace(
        records, arms=records.arms[::-1], runs=records.runs[::-1],
        curves=records.curves[::-1], environments=where[::-1],
    )  # fmt: skip

    assert repr(compare(turned)) == repr(compare(records))


def test_holm_counts_losses_once_and_costs_once_per_target():
    """Two targets: a cost makes two tests, each loss one."""
    entries = [
        Comparison(name=e, candidate="block", baseline="full", estimand=e)
        for e in ("updates_to_target", "final_loss", "best_loss", "area_under_curve")
    ]
    targets = (TARGET, Target(metric="val_loss", below=0.5))
    records = synthetic({"block": FAST, "full": FULL}, comparisons=entries, targets=targets)
    results = compare(records)

    assert [(r.name, bool(r.target)) for r in results] == [
        ("updates_to_target", True), ("updates_to_target", True), ("final_loss", False),
        ("best_loss", False), ("area_under_curve", False),
    ]  # fmt: skip
    assert {r.tests for r in results} == {5}


def test_equivalence_is_corrected_over_the_tests_with_a_margin():
    """A test without a margin claims no equivalence, and does not count among those that do."""
    plain = Comparison(name="plain", candidate="block", baseline="full")
    entries = (SAME, plain, SAME.model_copy(update={"name": "again"}))
    results = compare(synthetic({"block": NEAR, "full": FULL}, comparisons=entries))

    assert results[0].p_equivalence_holm == pytest.approx(2 * results[0].p_equivalence)
    assert np.isnan(results[1].p_equivalence_holm)


def test_seconds_of_mixed_hardware_leave_the_pair_out():
    """One pair timed on two machines is missing, with its reason; pairs may differ in hardware."""
    entry = BLOCK_VS_FULL.model_copy(update={"estimand": "seconds_to_target"})
    arms = {"block": FAST, "full": FULL}
    kinds = {"block-0": "x", "full-0": "y", "block-1": "y", "full-1": "y"}
    where = pd.DataFrame(
        [(f"{a}-{s}", kinds.get(f"{a}-{s}", "x")) for a in arms for s in range(8)],
        columns=["run_id", "cpu"],
    )
    records = dataclasses.replace(synthetic(arms, comparisons=(entry,)), environments=where)
    updates = dataclasses.replace(records, comparisons=(BLOCK_VS_FULL,))

    assert only(records).pairs == 7
    apart = "1 timed on different hardware than the other run of the pair"
    assert flagged(only(records), f"1 of 8 pairs is missing: {apart} in block, {apart} in full")
    assert flagged(only(records), "means of seconds pool them: cpu x for 6 of 7 pairs, cpu y for 1")
    assert only(updates).pairs == 8
    assert flagged(only(updates), " within 1 of 8 pairs: cpu x for 7 of 8")


def test_seeds_to_decide_are_more_than_there_were():
    """A number of pairs that did not decide is not suggested again."""
    block, full = [50, 50, 50, 50, 50, 102], [100] * 6
    result = versus(block, full, entry=BLOCK_VS_FULL)

    assert result.p > 0.05
    assert result.seeds_to_decide > 6


@pytest.mark.parametrize("status", [*map(str, FAILED)])
def test_a_hit_that_fails_later_is_a_hit(status):
    """Runs that fail after their target are compared, and a flag counts them."""
    records = synthetic({"block": FAST, "full": FULL}, comparisons=(SAME,))
    runs = records.runs.copy()
    runs.loc[runs["arm"] == "block", "status"] = status
    result = only(dataclasses.replace(records, runs=runs))

    assert (result.pairs, result.candidate_hits, str(result.verdict)) == (8, 8, "better")
    assert flagged(result, "8 of 8 runs of block reached the target before")

import dataclasses
import math

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from bdhf.records import Budget, Comparison, Target
from bdhf.stats.caveats.flags import evaluation_interval, too_few_pairs
from bdhf.stats.caveats.overturned import OF_MISSING_PAIRS
from bdhf.stats.compare import compare, to_table
from bdhf.stats.result import Result, Verdict
from bdhf.stats.text.sentences import OF_OTHERS, sentence
from tests.stats.synthetic import BLOCK_VS_FULL, TARGET, synthetic

FAST = [50, 62, 55, 71, 64, 58, 49, 66]  # seed by seed cheaper than SLOW, by 20 to 40 %
SLOW = [80, 85, 79, 95, 90, 88, 77, 91]


def only(records):
    """The result of an ablation with one test."""
    (result,) = compare(records)
    return result


def flagged(result, text):
    """Whether one of the flags contains this text."""
    return any(text in flag for flag in result.flags)


def test_planted_effect_is_found():
    """An arm that needs fewer updates on every seed is better, by the geometric mean ratio."""
    result = only(synthetic({"block": FAST, "full": SLOW}))

    assert result.verdict is Verdict.BETTER
    assert (result.p, result.p_holm) == (2 / 2**8, 2 / 2**8)
    assert (result.wins, result.ties, result.losses) == (8, 0, 0)
    assert result.ratio == pytest.approx(math.exp(np.mean(np.log(np.divide(FAST, SLOW)))))
    assert result.difference == pytest.approx(np.mean(FAST) - np.mean(SLOW))
    assert result.ratio_low < result.ratio < result.ratio_high < 1
    assert result.difference_low < result.difference < result.difference_high < 0
    assert result.flags == ()


def test_p_equal_to_alpha_decides():
    """The verdict takes p ≤ alpha, as the interval does."""
    records = synthetic({"block": FAST, "full": SLOW}, alpha=2 / 2**8)

    assert only(records).verdict is Verdict.BETTER
    assert only(records).ratio_high < 1


def test_direction_is_that_of_the_entry():
    """Candidate and baseline are those of the YAML, independent of any order."""
    records = synthetic({"block": FAST, "full": SLOW})
    swapped = Comparison(name="full vs block", candidate="full", baseline="block")
    result, turned = only(records), only(dataclasses.replace(records, comparisons=(swapped,)))
    reordered = only(synthetic({"full": SLOW, "block": FAST}))

    assert reordered == result
    assert turned.verdict is Verdict.WORSE
    assert turned.p == result.p
    assert turned.ratio == pytest.approx(1 / result.ratio)
    assert turned.ratio_low == pytest.approx(1 / result.ratio_high)
    assert (turned.wins, turned.losses) == (result.losses, result.wins)


def test_misses_cost_the_budget():
    """Restricted means count a miss and a diverged run as the budget, with flags."""
    result = only(synthetic({"block": FAST, "full": [*SLOW[:5], None, None, "diverged"]}))

    assert result.horizon == 300.0
    assert (result.candidate_hits, result.baseline_hits) == (8, 5)
    assert result.baseline_mean == pytest.approx(np.mean([*SLOW[:5], 300, 300, 300]))
    assert result.flags == (
        "3 of 8 runs of full did not reach the target within 300 updates: each counts as 300",
        "1 of 8 runs of full diverged, which is a miss even after a hit",
    )


def test_arms_that_both_miss_are_undecided():
    """All runs of both arms are censored: only ties, so no evidence."""
    result = only(synthetic({"block": [None] * 8, "full": [None] * 8}))

    assert result.verdict is Verdict.UNDECIDED
    assert (result.p, result.ratio, result.ties) == (1.0, 1.0, 8)
    assert flagged(result, "All pairs tie, so p is 1; p ≤ 0.05 requires 6 untied pairs")


def test_one_arm_that_always_misses_is_worse():
    """All runs of one arm are censored: the other is better on every seed."""
    result = only(synthetic({"block": [None] * 8, "full": SLOW}))

    assert result.verdict is Verdict.WORSE
    assert (result.candidate_hits, result.candidate_mean) == (0, 300.0)


def test_tied_pairs_raise_the_floor():
    """Eight pairs with three ties have the smallest p of five pairs."""
    result = only(
        synthetic({"block": [*FAST[:5], None, None, None], "full": [*SLOW[:5]] + [None] * 3})
    )

    assert result.verdict is Verdict.UNDECIDED
    assert result.p == 2 / 2**5
    assert flagged(result, "With 5 untied pairs p is at least 0.0625; p ≤ 0.05 requires 6")


@pytest.mark.parametrize("n", [1, 5])
def test_below_the_floor_nothing_is_decided(n):
    """With too few seeds even wins on every seed are undecided, with an infinite interval."""
    result = only(synthetic({"block": FAST[:n], "full": SLOW[:n]}))

    assert result.verdict is Verdict.UNDECIDED
    assert (result.ratio_low, result.ratio_high) == (0.0, math.inf)
    assert (result.difference_low, result.difference_high) == (-math.inf, math.inf)
    assert too_few_pairs(n, n, 0.05, 1)[0] in result.flags


def test_no_pairs_at_all():
    """Before any run a result exists, with p = 1 and the reasons."""
    result = only(synthetic({"block": ["planned"] * 3, "full": ["planned"] * 3}))

    assert (result.planned, result.pairs, result.p) == (3, 0, 1.0)
    assert result.verdict is Verdict.UNDECIDED
    assert math.isnan(result.ratio)
    assert math.isnan(result.baseline_mean)
    assert flagged(
        result, "3 of 3 pairs are missing: 3 not run yet in block, 3 not run yet in full"
    )


def test_no_pairs_on_an_axis_that_the_budget_does_not_limit():
    """Without a run there is no horizon, and no flag contains one."""
    entry = Comparison(
        name="time", candidate="block", baseline="full", estimand="seconds_to_target"
    )
    result = only(synthetic({"block": ["oom"], "full": ["planned"]}, comparisons=(entry,)))

    assert math.isnan(result.horizon)
    assert not flagged(result, "nan")
    assert flagged(result, "1 of 1 pair is missing: 1 oom in block, 1 not run yet in full")


def test_missing_pair_is_counted_and_survived():
    """A strong effect holds for any cost of the missing run."""
    block, full = [v // 4 for v in FAST] * 2, SLOW * 2
    result = only(synthetic({"block": block, "full": ["oom", *full[1:]]}, last=100))

    assert (result.planned, result.pairs) == (16, 15)
    assert result.verdict is Verdict.BETTER
    assert result.flags == ("1 of 16 pairs is missing: 1 oom in full",)


def test_verdict_that_a_missing_pair_could_overturn_is_undecided():
    """Better on the complete pairs, undecided if the missing run missed: undecided."""
    result = only(synthetic({"block": [*FAST, "timeout"], "full": [*SLOW, 80]}))

    assert result.p_holm <= result.alpha
    assert result.verdict is Verdict.UNDECIDED
    assert flagged(
        result,
        f"{OF_MISSING_PAIRS}: better without them, better in the best case for block, undecided in "
        "the worst",
    )


def test_bounds_are_corrected_like_the_test_itself():
    """A worst case that is significant alone but not after Holm overturns the verdict."""
    arms = {"block": ["oom", *[30] * 14], "full": [11, *SLOW[:7], *SLOW[:7]]}
    filled = only(synthetic(arms | {"block": [100, *[30] * 14]}, last=100))
    late = Comparison(name="never run", candidate="block", baseline="late")
    entries = (BLOCK_VS_FULL, *[late] * 19)
    records = synthetic(arms | {"late": ["planned"] * 15}, comparisons=entries, last=100)

    assert 0.05 / 20 < filled.p <= 0.05
    assert only(dataclasses.replace(records, comparisons=entries[:1])).verdict is Verdict.BETTER
    assert compare(records)[0].p_holm <= 0.05
    assert compare(records)[0].verdict is Verdict.UNDECIDED


X_AND_Y = tuple(Comparison(name=arm, candidate=arm, baseline="full") for arm in "xy")


def test_missing_runs_of_another_test_can_overturn_a_verdict():
    """Holm accepts a larger p after a smaller one, but not if missing runs made that one small."""
    arms = {
        "x": [80, 82, 84, 86, 88, 90, 119, 124],
        "y": ["planned", 52, 54, 56, 58, 60, 62, 64],
        "full": [100, 102, 104, 106, 108, 110, 112, 114],
    }
    result = compare(synthetic(arms, comparisons=X_AND_Y))[0]
    run = compare(synthetic(arms | {"y": [300, *arms["y"][1:]]}, comparisons=X_AND_Y))[0]

    assert result.p_holm <= 0.05 < run.p_holm
    assert (result.verdict, run.verdict) == (Verdict.UNDECIDED, Verdict.UNDECIDED)
    assert flagged(result, OF_OTHERS)
    assert sentence(result).endswith(
        "→ undecided: uncertain runs of other tests could change the verdict"
    )


def test_diverged_run_is_no_missing_pair():
    """Divergence is an outcome: the pair counts, with the budget as cost."""
    result = only(synthetic({"block": FAST, "full": ["diverged", *SLOW[1:]]}))

    assert result.pairs == 8
    assert result.verdict is Verdict.BETTER


def test_one_nan_in_a_curve_is_no_hit():
    """A NaN at the hit turns it into a miss, and changes nothing else."""
    records = synthetic({"block": FAST, "full": SLOW})
    curves = records.curves.reset_index(drop=True)
    at_hit = (curves["arm"] == "block") & (curves["seed"] == 0) & (curves["update"] == FAST[0])
    curves.loc[at_hit, "val_loss"] = np.nan
    result = only(dataclasses.replace(records, curves=curves))

    assert result.candidate_hits == 7
    assert result.candidate_mean == pytest.approx(np.mean([300, *FAST[1:]]))


def test_holm_counts_every_test():
    """Entries × targets are tests of one family, in YAML order, tests without pairs included."""
    entries = (
        BLOCK_VS_FULL,
        Comparison(name="never run", candidate="block", baseline="late"),
        Comparison(name="near", candidate="near", baseline="full"),
    )
    targets = (TARGET, Target(metric="val_loss", below=0.5))
    near = [72, 90, 78, 91, 93, 81, 76, 90]
    arms = {"block": FAST, "full": SLOW, "late": ["planned"] * 8, "near": near}
    results = compare(synthetic(arms, comparisons=entries, targets=targets))

    p = [result.p for result in results]
    assert [(r.name, r.target) for r in results] == [
        (e.name, t.label) for e in entries for t in targets
    ]
    assert [result.tests for result in results] == [6] * 6
    assert p[2:4] == [1.0, 1.0]
    assert 0.05 < p[4] < 1
    np.testing.assert_allclose([r.p_holm for r in results], multipletests(p, method="holm")[1])
    assert results[0].verdict is Verdict.BETTER


def test_later_steps_of_holm_ask_less():
    """Six pairs can be decided after eight others passed the first step, without a flag."""
    entries = (
        BLOCK_VS_FULL,
        Comparison(name="six seeds", candidate="six", baseline="full"),
    )
    arms = {"block": FAST, "full": SLOW, "six": FAST[:6]}
    first, second = compare(synthetic(arms, comparisons=entries))

    assert 0.05 / 2 < second.p == second.p_holm <= 0.05
    assert second.verdict is Verdict.BETTER
    assert first.flags == second.flags == ()


def test_correction_can_undo_a_verdict():
    """A p that is significant alone is not significant among eight tests."""
    entries = tuple(
        Comparison(name=str(i), candidate="block", baseline="full" if i == 0 else "late")
        for i in range(8)
    )
    arms = {"block": FAST, "full": SLOW, "late": ["planned"] * 8}
    first = compare(synthetic(arms, comparisons=entries))[0]

    assert first.p < 0.05 < first.p_holm
    assert first.ratio_high < 1
    assert first.verdict is Verdict.UNDECIDED
    assert too_few_pairs(8, 8, 0.05, 8)[0] in first.flags
    assert flagged(first, "p ≤ 0.00625, the first step of Holm over 8 tests, requires 9")


def test_axis_that_the_budget_does_not_limit_is_flagged():
    """In seconds the fast arm's misses end early, and all costs are restricted there."""
    entry = Comparison(
        name="time", candidate="block", baseline="full", estimand="seconds_to_target"
    )
    arms = {"block": [None, *FAST[1:]], "full": [150, *SLOW[1:]]}
    result = only(synthetic(arms, comparisons=(entry,), seconds={"block": 0.25, "full": 1.0}))

    assert result.horizon == 75.0
    assert result.candidate_mean == pytest.approx(np.mean([75, *(0.25 * u for u in FAST[1:])]))
    assert result.baseline_mean == pytest.approx(75.0)
    assert flagged(result, "limits updates, not seconds of training: costs are restricted at 75,")


def test_diverged_run_on_another_axis_is_flagged():
    """Without a miss a diverged run counts as the budget at its arm's slowest pace, with a flag."""
    entry = Comparison(
        name="time", candidate="block", baseline="full", estimand="seconds_to_target"
    )
    plain = only(synthetic({"block": FAST, "full": SLOW}, comparisons=(entry,)))
    result = only(synthetic({"block": FAST, "full": ["diverged", *SLOW[1:]]}, comparisons=(entry,)))

    assert plain.flags == ()
    assert result.horizon == 300.0
    assert flagged(
        result, "a diverged run counts as 300, the budget at the slowest pace of its arm"
    )


def test_seconds_of_runs_in_company_are_flagged():
    """Runs that shared the machine are counted, and the flag has the command for timing.

    Runs that were alone, or have no record of it, raise no flag; nor do comparisons of updates.
    """
    entries = tuple(
        Comparison(name=axis, candidate="block", baseline="full", estimand=f"{axis}_to_target")
        for axis in ("seconds", "updates")
    )
    records = synthetic({"block": FAST, "full": SLOW}, comparisons=entries)
    concurrent = {"block-0": 3, "block-1": 2, "full-0": 1}
    environments = records.environments.assign(
        concurrent=records.environments["run_id"].map(concurrent)
    )
    alone = environments.assign(concurrent=1)

    shared = compare(dataclasses.replace(records, environments=environments))

    assert shared[0].flags == (
        "2 of 8 runs of block shared the machine with others, up to 3 at once",
        "Seconds depend on the load of the machine: use `bdhf run SPEC --workers 1` for timing",
    )
    assert shared[1].flags == ()
    assert compare(dataclasses.replace(records, environments=alone))[0].flags == ()
    assert compare(records)[0].flags == ()


def test_unrecorded_axis_is_missing_data():
    """A run without a recorded cost on the axis makes its pair missing, with a flag."""
    entry = Comparison(
        name="time", candidate="block", baseline="full", estimand="seconds_to_target"
    )
    records = synthetic({"block": FAST, "full": SLOW}, comparisons=(entry,))
    lost = records.curves["run_id"] == "full-3"
    curves = records.curves.assign(seconds=records.curves["seconds"].mask(lost))
    result = only(dataclasses.replace(records, curves=curves))

    assert result.pairs == 7
    assert flagged(
        result, "1 of 8 pairs is missing: 1 without recorded seconds of training in full"
    )


def test_run_that_ended_before_the_budget_is_flagged():
    """A miss that ended before the budget counts as the budget, with a flag."""
    records = synthetic({"block": FAST, "full": [*SLOW[:7], None]}, budget=Budget(updates=400))

    assert flagged(
        only(records), "1 of 8 runs of full ended without a hit before the budget of 400"
    )


def test_zero_cost_and_evaluation_interval_are_flagged():
    """Flags report what a cost of 0 counts as, and how late hits are recorded."""
    result = only(synthetic({"block": [0, *FAST[1:]], "full": SLOW}, every=5))

    assert result.ratio > 0
    assert flagged(result, "1 of 8 runs of block cost 0 updates: it counts as 5 in the ratio")
    assert evaluation_interval(5)[0] in result.flags


def test_family_of_identical_arms_is_rarely_rejected():
    """Among three comparisons of equal, censored arms a verdict comes at most at rate alpha."""
    draws, alpha, budget = 40, 0.2, 60
    entries = tuple(Comparison(name=arm, candidate=arm, baseline="full") for arm in ("a", "b", "c"))
    rng = np.random.default_rng(5)
    decided = 0
    for _ in range(draws):
        cost = np.ceil(rng.lognormal(4.0, 0.5, (4, 7))).astype(int).tolist()
        capped = [[u if u <= budget else None for u in seeds] for seeds in cost]
        arms = dict(zip(("full", "a", "b", "c"), capped, strict=True))
        results = compare(synthetic(arms, comparisons=entries, last=budget, alpha=alpha))
        decided += any(result.verdict is not Verdict.UNDECIDED for result in results)

    assert decided / draws <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / draws)
    assert decided > 0


def test_table_has_a_row_per_result_and_survives_parquet(tmp_path):
    """comparisons.parquet has every field, and no row without comparisons."""
    results = compare(synthetic({"block": FAST, "full": [*SLOW[:7], "diverged"]}))
    table, empty = to_table(results), to_table(())
    table.to_parquet(tmp_path / "comparisons.parquet")
    empty.to_parquet(tmp_path / "empty.parquet")

    assert table.columns.tolist() == [field.name for field in dataclasses.fields(Result)]
    assert table["verdict"].tolist() == ["better"]
    assert table["flags"].item() == "; ".join(results[0].flags)
    assert empty.columns.equals(table.columns)


def test_no_comparisons_no_results():
    """An ablation without a compare section has no results."""
    assert compare(synthetic({"block": FAST, "full": SLOW}, comparisons=())) == ()

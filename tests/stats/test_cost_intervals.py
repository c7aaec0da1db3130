"""Costs are known to an evaluation interval, and `equivalent` holds for all of them."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdhf.stats.caveats import open_costs
from bdhf.stats.caveats.flags import evaluation_interval
from bdhf.stats.compare import compare
from bdhf.stats.inference import equivalence
from bdhf.stats.inference.equivalence import tost, tost_over
from bdhf.stats.inference.paired import sign_flip
from bdhf.stats.observations.pairing import pair
from bdhf.stats.text.sentences import OF_EVALUATIONS, sentence
from tests.stats.synthetic import BLOCK_VS_FULL, TARGET, synthetic

SAME = BLOCK_VS_FULL.model_copy(update={"margin": 1.1})
SECONDS = SAME.model_copy(update={"estimand": "seconds_to_target"})


def only(records):
    """The result of an ablation with one test."""
    (result,) = compare(records)
    return result


def boxes(rng, n, width=0.05):
    """Bounds of n log ratios near 0, of which about a third are exact."""
    low = rng.normal(0, 0.03, n)
    return low, low + np.where(rng.random(n) < 0.35, 0.0, width * rng.random(n))


def corners(low, high):
    """All corners of a box."""
    return itertools.product(*zip(low, high, strict=True))


@pytest.mark.parametrize("n", [2, 3, 5, 7])
@pytest.mark.parametrize("seed", range(6))
def test_p_is_the_largest_over_the_box(n, seed):
    """Both p equal the largest over all corners, and no point in the box has a larger one."""
    rng = np.random.default_rng([seed, n])
    low, high = boxes(rng, n)
    over = tost_over(low, high, 1.1)
    at_corners = [tost(corner, 1.1) for corner in corners(low, high)]
    between = [tost(low + rng.random(n) * (high - low), 1.1) for _ in range(200)]

    assert over.p_flip == max(test.p_flip for test in at_corners)
    assert over.p_t == pytest.approx(max(test.p_t for test in at_corners), rel=1e-9)
    assert over.p_t >= max(test.p_t for test in between) * (1 - 1e-9)
    assert over.p_flip >= max(test.p_flip for test in between)


@given(st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=20), st.floats(1.01, 2.0))
def test_boxes_without_width_are_the_log_ratios(d, margin):
    """With an evaluation at every update, p equals that of the test, to the bit."""
    assert tost_over(d, d, margin) == tost(d, margin)


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_beyond_sixteen_pairs_is_no_less_and_hardly_more(seed, monkeypatch):
    """The bound over the hull is at least the maximum over all corners, here for 12 pairs."""
    low, high = boxes(np.random.default_rng(seed), 12)
    exact = tost_over(low, high, 1.1).p_t
    monkeypatch.setattr(equivalence, "EXACT_UP_TO", 0)
    bound = tost_over(low, high, 1.1).p_t

    assert exact <= bound * (1 + 1e-12)
    assert bound <= 1.5 * exact + 1e-12


def test_where_the_mean_may_lie_at_the_margin_p_is_one():
    """A box that contains a mean at the margin gives no evidence."""
    assert tost_over([-0.01] * 8, [0.2] * 8, 1.1).p == 1.0


def test_equal_evaluations_are_no_agreement():
    """Costs of 107 and 157 updates, both recorded at update 200, are not equivalent."""
    arms = {"block": [200] * 5, "full": [200] * 5}
    wide = synthetic(arms, comparisons=(SAME,), every=200)
    coarse, fine = only(wide), only(synthetic(arms, comparisons=(SAME,)))
    (flag,) = open_costs.coarse(pair(wide, SAME, TARGET), SAME, coarse.p_equivalence, 0.05)

    assert str(fine.verdict) == "equivalent"
    assert str(coarse.verdict) == "undecided"
    assert coarse.p_equivalence == 1.0
    assert flag in coarse.flags
    assert fine.flags == ()


@pytest.mark.parametrize(
    ("every", "verdict"),
    [(1, "equivalent"), (5, "equivalent"), (9, "equivalent"), (25, "undecided")],
)
def test_an_interval_within_the_margin_still_decides(every, verdict):
    """At 200 updates within 1.1 times, evaluations are fine enough up to some 18 updates apart."""
    ends = [200, 201, 199, 200, 202, 198, 200, 201]
    result = only(synthetic({"block": ends, "full": ends[::-1]}, comparisons=(SAME,), every=every))

    assert str(result.verdict) == verdict


def test_boxes_reach_from_the_earliest_to_the_recorded_cost():
    """The lower end is the candidate's earliest and the baseline's recorded cost, or reversed."""
    records = synthetic({"block": [40, None], "full": [80, 60]}, every=10, last=100)
    low, high = pair(records, BLOCK_VS_FULL, TARGET).box()

    np.testing.assert_allclose(np.exp(low), [31 / 80, 100 / 60])
    np.testing.assert_allclose(np.exp(high), [40 / 71, 100 / 51])


@pytest.mark.parametrize("missed", [None, "diverged"])
def test_a_run_that_missed_costs_the_horizon_and_no_less(missed):
    """Its cost does not depend on evaluations: the box has no width."""
    ends = [100, 101, 99, 100, 102, 98, 100, 101, 99, 100, 100]
    arms = {"block": [*ends, missed], "full": [*ends[::-1], 299]}
    result = only(synthetic(arms, comparisons=(SAME,)))
    clock = synthetic(arms | {"full": [None, *ends[::-1]]}, comparisons=(SECONDS,),
                      seconds={"block": 1.0, "full": 1.2})  # fmt: skip
    low, high = pair(clock, SECONDS, TARGET).box()

    assert str(result.verdict) == "equivalent"
    np.testing.assert_array_equal(low, high)


def test_a_hit_beyond_the_horizon_may_have_been_within():
    """It costs the horizon as recorded, and at least the earliest possible cost."""
    records = synthetic(
        {"block": [None, 40], "full": [60, 40]}, comparisons=(SECONDS,), every=10, last=35
    )
    low, high = pair(records, SECONDS, TARGET).box()

    np.testing.assert_allclose(np.exp(low), [1.0, 31 / 35])
    np.testing.assert_allclose(np.exp(high), [1.0, 35 / 31])


def test_a_cost_of_zero_is_known():
    """A target that held before training was not reached between evaluations."""
    records = synthetic({"block": [0, 8], "full": [8, 8]}, every=4)
    low, high = pair(records, BLOCK_VS_FULL, TARGET).box()

    np.testing.assert_allclose(np.exp(low), [4 / 8, 5 / 8])
    np.testing.assert_allclose(np.exp(high), [4 / 5, 8 / 5])


def test_better_and_worse_do_not_depend_on_the_interval():
    """Recorded costs of identical arms are exchangeable, however coarse they are."""
    block, full = [100] * 8, [200] * 8
    fine = only(synthetic({"block": block, "full": full}, comparisons=(SAME,)))
    coarse = only(synthetic({"block": block, "full": full}, comparisons=(SAME,), every=100))

    assert (fine.p, str(fine.verdict)) == (coarse.p, str(coarse.verdict))
    assert str(fine.verdict) == "better"
    assert coarse.flags == evaluation_interval(100)


def test_evaluations_that_cost_one_arm_more_are_reported():
    """Arms that may be equal in seconds, where updates of one arm take ten times as long."""
    arms = {"block": [50] * 8, "full": [300 + i for i in range(8)]}
    pace = {"block": 1.0, "full": 0.1}
    coarse = only(synthetic(arms, comparisons=(SECONDS,), every=50, seconds=pace, last=400))
    fine = only(synthetic(arms, comparisons=(SECONDS,), every=1, seconds=pace, last=400))
    arms = {"block": [100] * 8, "full": [150] * 8}
    alike = only(synthetic(arms, comparisons=(SAME,), every=50, last=400))

    verdicts = [str(result.verdict) for result in (coarse, fine, alike)]
    assert verdicts == ["undecided", "worse", "better"]
    assert coarse.p_holm <= 0.05
    assert f"{OF_EVALUATIONS}: worse as recorded, better in the best case for block, worse in " \
        "the worst" in coarse.flags  # fmt: skip
    assert sentence(coarse).endswith(
        "→ undecided: evaluation intervals of unequal cost could change the verdict"
    )
    assert (
        "Evaluation intervals cost the arms differently: hits may be recorded late by up to 49 in "
        "block and 4.9 in full (means, in seconds of training), which alone allows ratios from "
        "0.033 to 1.96"
    ) in coarse.flags
    assert not any("ratios" in flag for flag in (*fine.flags, *alike.flags))


@pytest.mark.parametrize("seed", range(12))
def test_better_and_worse_hold_over_the_box_of_costlier_evaluations(seed):
    """The test rejects on the same side at every corner of the box of six pairs."""
    rng = np.random.default_rng(seed)
    arms = {"block": rng.integers(20, 30, 6).tolist(), "full": rng.integers(180, 420, 6).tolist()}
    records = synthetic(
        arms, comparisons=(SECONDS,), every=5, seconds={"block": 1.0, "full": 0.1}, last=500
    )
    low, high = pair(records, SECONDS, TARGET).box()
    corners = (np.where(ends, high, low) for ends in itertools.product((False, True), repeat=6))
    tested = [sign_flip(corner, alpha=0.05) for corner in corners]
    sides = {(bool(np.sign(test.mean) < 0), test.p <= 0.05) for test in tested}

    holds = len(sides) == 1 and sides <= {(True, True), (False, True)}
    assert (str(only(records).verdict) in ("better", "worse")) == holds


def test_hits_at_the_start_do_not_make_evaluations_cheaper():
    """They are recorded exactly, and are uninformative on the time between evaluations."""
    arms = {"block": [0, 0, 0, 8, 8, 8], "full": [8] * 6}
    records = synthetic(arms, comparisons=(SAME,), every=4)
    pairs = pair(records, SAME, TARGET)

    assert pairs.late == (3.0, 3.0)
    assert not pairs.evaluations_differ


def test_seconds_have_boxes_too():
    """The lower bound is the cost of one update after the previous evaluation."""
    records = synthetic(
        {"block": [40], "full": [40]}, comparisons=(SECONDS,), every=10, seconds={"block": 0.5}
    )
    low, high = pair(records, SECONDS, TARGET).box()

    np.testing.assert_allclose(np.exp(low), 15.5 / 40)
    np.testing.assert_allclose(np.exp(high), 20 / 31)


def test_no_number_of_seeds_decides_with_wide_evaluation_intervals():
    """Where the box alone is wider than the margin, more seeds cannot show equivalence."""
    arms = {"block": [198, 202, 195, 205], "full": [202, 198, 205, 195]}
    fine = only(synthetic(arms, comparisons=(SAME,)))
    coarse = only(synthetic(arms, comparisons=(SAME,), every=100))

    assert fine.seeds_to_decide < 100
    assert coarse.seeds_to_decide > 1000

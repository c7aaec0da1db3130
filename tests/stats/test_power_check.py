"""The power check before the runs: what the seeds of a spec can decide."""

from __future__ import annotations

import math

import pytest

from bdhf.records import Budget, Comparison, PlannedArm
from bdhf.stats.inference.power import power, seeds_to_decide
from bdhf.stats.power_check import power_check
from tests.stats.synthetic import BLOCK_VS_FULL, TARGET, synthetic

STATED = BLOCK_VS_FULL.model_copy(update={"margin": 1.2, "log_ratio_sd": 0.3})
FINAL = Comparison(name="final", candidate="block", baseline="full", estimand="final_loss")
FAST = [50, 62, 55, 71, 64, 58, 49, 66]
SLOW = [80, 85, 79, 95, 90, 88, 77, 91]


def test_costs_count_once_a_target_and_losses_once():
    """The floor is that of all tests that Holm will count."""
    other = TARGET.model_copy(update={"below": 0.5})
    check = power_check([BLOCK_VS_FULL, FINAL], [TARGET, other], alpha=0.05, seeds=5)

    assert (check.tests, check.needed, check.powers) == (3, 7, ())


def test_power_is_that_at_the_margin_and_the_level_of_holms_first_step():
    """With the stated spread, for a ratio as large as the margin."""
    (planned,) = power_check([STATED, FINAL], [TARGET], alpha=0.05, seeds=10).powers

    effect = math.log(1.2)
    assert (planned.sd, planned.source) == (0.3, "stated")
    assert planned.power == power(effect, 0.3, 10, 0.025)
    assert planned.seeds == seeds_to_decide(effect, 0.3, 0.025)


def test_finished_runs_give_the_spread():
    """Without a stated spread, finished runs in the folder are the pilot."""
    entry = BLOCK_VS_FULL.model_copy(update={"margin": 1.1})
    pilot = synthetic({"block": FAST, "full": SLOW}, comparisons=[entry])
    (planned,) = power_check([entry], [TARGET], alpha=0.05, seeds=8, finished=pilot).powers

    assert planned.source == "8 finished pairs"
    assert 0.02 < planned.sd < 0.2


@pytest.mark.parametrize("pairs", [0, 1, 2])
def test_two_pairs_are_no_pilot(pairs):
    """A spread over so few pairs is not used."""
    entry = BLOCK_VS_FULL.model_copy(update={"margin": 1.1})
    ends = {"block": [*FAST[:pairs], "planned"], "full": [*SLOW[:pairs], "planned"]}
    pilot = synthetic(ends, comparisons=[entry])

    assert power_check([entry], [TARGET], alpha=0.05, seeds=8, finished=pilot).powers == ()


def arms(every=200, **budget):
    """The two arms of a plan."""
    return [
        PlannedArm(label=label, name=label, budget=Budget(**budget), evaluate_every=every)
        for label in ("block", "full")
    ]


def coarse(every=200, *, entry=STATED, finished=None, **budget):
    """The tests whose evaluations are too far apart."""
    return power_check(
        [entry, FINAL], [TARGET], alpha=0.05, seeds=5, arms=arms(every, **budget), finished=finished
    ).coarse


def test_evaluations_too_far_apart_for_the_margin_are_reported():
    """With evaluations every 200 updates, only costs from 1,194 on lie within 1.2× in any case."""
    (test,) = coarse(updates=300)

    assert (test.name, test.target) == ("block vs full", "val_loss ≤ 0.02")
    assert (test.every, test.least, test.expected, test.fine) == (200, 1194, 150, 26)
    assert test.source == "half of the budget"


@pytest.mark.parametrize("expected", [20, 150, 151, 1000])
@pytest.mark.parametrize("margin", [1.05, 1.1, 2.0])
def test_fine_is_the_widest_interval_that_is_fine_enough(expected, margin):
    """At that interval there is no warning, and at one more update there is one."""
    entry = STATED.model_copy(update={"margin": margin})
    (test,) = coarse(10_000, entry=entry, updates=2 * expected)

    assert coarse(test.fine, entry=entry, updates=2 * expected) == ()
    assert len(coarse(test.fine + 1, entry=entry, updates=2 * expected)) == 1
    assert expected / (expected - test.fine + 1) <= margin < expected / (expected - test.fine)


def test_finished_runs_tell_what_is_expected():
    """The expected cost is their median, whatever the budget."""
    finished = synthetic({"block": FAST, "full": SLOW}, every=10)
    (test,) = coarse(25, finished=finished, seconds=60)

    assert (test.expected, test.source) == (74, "the median of 16 finished runs")
    assert coarse(10, finished=finished, seconds=60) == ()


def test_nothing_is_reported_about_what_is_not_known():
    """Without a margin, at every update, for a loss, or with a budget on another axis."""
    assert coarse(updates=300, entry=BLOCK_VS_FULL) == ()
    assert coarse(1, updates=300) == ()
    assert coarse(200, seconds=60) == ()
    assert power_check([STATED], [TARGET], alpha=0.05, seeds=5).coarse == ()

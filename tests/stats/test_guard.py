"""The guard: what the seeds of a spec can decide, said before any time is spent."""

from __future__ import annotations

import math

import pytest

from bdhf.records import Comparison
from bdhf.stats.guard import guard
from bdhf.stats.power import power, seeds_to_decide
from tests.stats.synthetic import BLOCK_VS_FULL, TARGET, synthetic

STATED = BLOCK_VS_FULL.model_copy(update={"margin": 1.2, "log_ratio_sd": 0.3})
FINAL = Comparison(name="final", candidate="block", baseline="full", estimand="final_loss")
FAST = [50, 62, 55, 71, 64, 58, 49, 66]
SLOW = [80, 85, 79, 95, 90, 88, 77, 91]


def test_costs_count_once_a_target_and_losses_once():
    """The floor is that of all tests that Holm will count."""
    other = TARGET.model_copy(update={"below": 0.5})
    found = guard([BLOCK_VS_FULL, FINAL], [TARGET, other], alpha=0.05, seeds=5)

    assert (found.tests, found.needed, found.powers) == (3, 7, ())


def test_power_is_that_at_the_margin_and_the_level_of_holms_first_step():
    """With the stated spread, for a ratio as large as the margin."""
    (one,) = guard([STATED, FINAL], [TARGET], alpha=0.05, seeds=10).powers

    effect = math.log(1.2)
    assert (one.sd, one.source) == (0.3, "stated")
    assert one.power == power(effect, 0.3, 10, 0.025)
    assert one.seeds == seeds_to_decide(effect, 0.3, 0.025)


def test_finished_runs_tell_the_spread():
    """A pilot in the same folder stands in where nothing is stated."""
    entry = BLOCK_VS_FULL.model_copy(update={"margin": 1.1})
    pilot = synthetic({"block": FAST, "full": SLOW}, comparisons=[entry])
    (one,) = guard([entry], [TARGET], alpha=0.05, seeds=8, finished=pilot).powers

    assert one.source == "8 finished pairs"
    assert 0.02 < one.sd < 0.2


@pytest.mark.parametrize("pairs", [0, 1, 2])
def test_two_pairs_are_no_pilot(pairs):
    """A spread over so few is a guess, and is not used."""
    entry = BLOCK_VS_FULL.model_copy(update={"margin": 1.1})
    ends = {"block": [*FAST[:pairs], "planned"], "full": [*SLOW[:pairs], "planned"]}
    pilot = synthetic(ends, comparisons=[entry])

    assert guard([entry], [TARGET], alpha=0.05, seeds=8, finished=pilot).powers == ()

import dataclasses

import numpy as np
import pandas as pd
import pytest

from bdhf.stats.inference.paired import sign_flip
from bdhf.stats.observations.hardware import hardware
from bdhf.stats.observations.pairing import pair
from tests.stats.synthetic import BLOCK_VS_FULL, TARGET, synthetic

SECONDS = BLOCK_VS_FULL.model_copy(update={"estimand": "seconds_to_target"})


def test_pairs_are_matched_by_seed():
    """Common seeds make pairs, independent of the order of rows and of other seeds."""
    records = synthetic({"block": [10, 20, 30], "full": [20, 20, 20, 90]})
    shuffled = dataclasses.replace(records, runs=records.runs[::-1], curves=records.curves[::-1])
    pairs = pair(shuffled, BLOCK_VS_FULL, TARGET)

    assert pairs.differences().tolist() == [-10.0, 0.0, 10.0]
    np.testing.assert_allclose(pairs.log_ratios(), np.log([0.5, 1.0, 1.5]))


def test_third_arm_does_not_matter():
    """The horizon and the floor of a comparison come from its two arms only."""
    arms = {"block": [10, None], "full": [20, 30]}
    alone = pair(synthetic(arms), SECONDS, TARGET)
    arms["adam"] = [1, None]
    beside = pair(synthetic(arms, seconds={"adam": 0.01}), SECONDS, TARGET)

    assert (beside.horizon, beside.floor) == (alone.horizon, alone.floor)


def test_cost_of_zero_counts_as_the_smallest_cost_in_ratios_only():
    """log(0) does not exist, but a difference needs no floor."""
    records = synthetic({"block": [0, 8], "full": [4, 8]}, every=4)
    pairs = pair(records, BLOCK_VS_FULL, TARGET)

    assert pairs.floor == 4.0
    assert pairs.log_ratios().tolist() == [0.0, 0.0]
    assert pairs.differences().tolist() == [-4.0, 0.0]


def test_missing_side_leaves_the_pair_out():
    """A pair with one failed run is planned but has no difference."""
    records = synthetic({"block": [10, "oom", 30], "full": [20, 20, "planned"]})
    pairs = pair(records, BLOCK_VS_FULL, TARGET)

    assert (len(pairs), len(pairs.complete)) == (3, 1)
    assert pairs.differences().tolist() == [-10.0]


def test_bounds_take_the_extremes_and_keep_what_is_known():
    """Best is the smallest cost against the horizon, worst the reverse."""
    records = synthetic({"block": [10, "oom", "oom"], "full": [20, 40, "timeout"]}, last=100)
    pairs = pair(records, BLOCK_VS_FULL, TARGET)

    best, worst = (np.exp(pairs.filled(best=side).effects()) for side in (True, False))
    np.testing.assert_allclose(best, [1 / 2, 10 / 40, 10 / 100])
    np.testing.assert_allclose(worst, [1 / 2, 100 / 40, 100 / 10])


def test_every_fill_of_the_missing_lies_between_the_bounds():
    """The lower limit of the interval is monotone in the costs of the missing runs."""
    rng = np.random.default_rng(0)
    block, full = rng.integers(20, 90, 8).tolist(), rng.integers(20, 90, 8).tolist()
    failed = synthetic({"block": [*block[:6], "oom", "oom"], "full": full}, last=100)
    pairs = pair(failed, BLOCK_VS_FULL, TARGET)
    best, worst = (sign_flip(pairs.filled(best=side).effects()) for side in (True, False))

    for fill in rng.integers(min(block[:6] + full), 101, (20, 2)).tolist():
        filled = synthetic({"block": [*block[:6], *fill], "full": full}, last=100)
        test = sign_flip(pair(filled, BLOCK_VS_FULL, TARGET).log_ratios())
        assert best.low <= test.low <= worst.low
        assert best.high <= test.high <= worst.high


def test_two_runs_of_a_seed_are_an_error():
    """A seed that an arm holds twice cannot be paired."""
    records = synthetic({"block": [10, 20], "full": [10, 20]})
    records = dataclasses.replace(records, runs=records.runs.assign(seed=0))

    with pytest.raises(ValueError, match=r"'block'.*seed 0"):
        pair(records, BLOCK_VS_FULL, TARGET)


def test_hardware_that_is_recorded_in_part_is_a_kind_of_its_own():
    """A run with only its processor recorded differs from those with all keys."""
    environments = pd.DataFrame(
        {"run_id": ["a", "b", "c"], "cpu": ["x", "x", "x"], "device": ["cpu", None, "cpu"]}
    )

    kinds = hardware(environments)

    assert kinds["a"] == kinds["c"] != kinds["b"]

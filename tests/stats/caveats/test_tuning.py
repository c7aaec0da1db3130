"""What the tuning of two arms says beside the number of their comparison."""

from dataclasses import replace

import pytest

from bdhf.records import ArmTuning, Tuned
from bdhf.stats.caveats.tuning import is_tuned
from bdhf.stats.compare import compare
from tests.stats.synthetic import synthetic

HITS = {"block": [10, 11, 12, 13, 14, 15, 16, 17], "full": [20, 22, 24, 26, 28, 30, 32, 34]}
SIZES = {"block": {"batch.gradient": "100"}, "full": {"batch.gradient": "200"}}


def tuned_as(block="tuned", full="tuned", trials=(24, 24), **changes):
    """Records of two arms, and how each was tuned."""
    arms = {
        "block": ArmTuning(how=block, trials=trials[0]),
        "full": ArmTuning(
            how=full, trials=trials[1], why="lr 0.3, tuned 0.31" * (full == "changed")
        ),
    }
    tuning = Tuned(study="studies/x", objective="updates_to_target", arms=arms, **changes)
    return replace(synthetic(HITS), tuning=tuning)


def flags(records):
    """The flags of the only comparison."""
    (result,) = compare(records)
    return result.flags


def test_arms_that_were_tuned_alike_need_no_word():
    """The same for arms of a spec without a study, or whose study is missing."""
    assert flags(tuned_as()) == flags(synthetic(HITS)) == ()
    assert flags(tuned_as("untuned", "untuned", (0, 0))) == ()
    lost = Tuned(study="studies/x", missing="it is gone")
    assert flags(replace(synthetic(HITS), tuning=lost)) == ()


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (tuned_as("tuned", "untuned", (24, 0)), "full was not tuned"),
        (tuned_as("tuned", "changed"), "full was tuned and then changed (lr 0.3, tuned 0.31)"),
        (tuned_as("tuned", "elsewhere", (24, 0)), "full was not tuned for this setting"),
        (tuned_as(trials=(24, 12)), "full was tuned in 12 trials"),
    ],
)  # fmt: skip
def test_a_tuned_arm_against_another_is_flagged(records, said):
    """Whatever the reason why the other arm was not tuned alike."""
    assert flags(records) == (
        f"block was tuned in 24 trials, {said}: a difference may be due to tuning",
    )


def test_settings_that_were_chosen_on_the_same_seeds_are_flagged():
    """The flag names the arms with settings of the study."""
    shared = {"shared_seeds": (0, 1)}

    assert flags(tuned_as(**shared)) == (
        "Settings of block and full were chosen on 2 seeds of this comparison, which biases it in "
        "their favour",
    )
    assert "Settings of block were" in flags(tuned_as("tuned", "untuned", (24, 0), **shared))[1]


def test_arms_that_were_tuned_at_each_size_have_not_one_setting_for_all():
    """Batch sizes are flagged where neither arm is tuned, and only there."""
    tuned, untuned = tuned_as(), tuned_as("untuned", "untuned", (0, 0))

    assert flags(replace(tuned, values=SIZES)) == ()
    assert flags(replace(untuned, values=SIZES))[0].startswith("At batch size 100 and 200 ")
    unequal = tuned_as("tuned", "untuned", (24, 0))
    assert flags(replace(unequal, values=SIZES)) == flags(unequal)
    assert len(flags(unequal)) == 1


def test_only_the_settings_that_were_chosen_are_tuned():
    """Arms without a record are not."""
    assert is_tuned(tuned_as(), "block", "full")
    assert not is_tuned(tuned_as("changed"), "block")
    assert not is_tuned(tuned_as(), "block", "other")
    assert not is_tuned(synthetic(HITS), "block")

import numpy as np
import pandas as pd
import pytest

from bdhf.records import FAILED, MISSING, InputError, Target
from bdhf.stats.observations.targets import hits, observe_targets


def one_run(losses, *, status="done", total=None, every=2):
    """The tables of a single run with these validation losses, `every` updates apart."""
    updates = [every * i for i in range(len(losses))]
    runs = pd.DataFrame(
        {"arm": ["hf"], "seed": [0], "run_id": ["a"], "status": [status], "update": [total]}
    )
    curves = pd.DataFrame({"arm": "hf", "seed": 0, "update": updates, "val_loss": losses})
    return runs, curves


def outcome(losses, *, sustain=1, **run):
    """(reached, time) of a single run for the target val_loss ≤ 0.2."""
    target = Target(metric="val_loss", below=0.2, sustain=sustain)
    row = observe_targets(*one_run(losses, **run), target).iloc[0]
    return bool(row["reached"]), row["time"]


def test_hit_is_the_first_evaluation_at_or_below():
    """Equality hits, and later evaluations above the target do not undo the hit."""
    assert outcome([1.0, 0.3, 0.2, 0.1, 0.9], total=8) == (True, 4.0)


def test_sustained_hit_is_dated_at_the_start_of_its_stretch():
    """With sustain = 2 a lone dip does not count, and the time is that of the stretch's start."""
    assert outcome([1.0, 0.1, 0.9, 0.2, 0.1], sustain=2, total=8) == (True, 6.0)


def test_stretch_cut_short_by_the_end_is_a_miss():
    """A run that ends one evaluation before the target is sustained has not reached it."""
    assert outcome([1.0, 0.9, 0.1], sustain=2, total=4) == (False, 4.0)


def test_nan_never_hits_and_breaks_a_stretch():
    """NaN is not at or below anything, alone or between two values that are."""
    assert outcome([np.nan, np.nan], total=2) == (False, 2.0)
    assert outcome([1.0, 0.1, np.nan, 0.1], sustain=2, total=6) == (False, 6.0)


@pytest.mark.parametrize("sustain", [1, 2, 3])
def test_hits_equal_a_literal_search(sustain):
    """The sliding window agrees with a loop over all positions."""
    below = np.random.default_rng(sustain).random((200, 7)) < 0.5

    for row in below:
        literal = [i for i in range(8 - sustain) if row[i : i + sustain].all()]
        assert np.flatnonzero(hits(row, sustain)).tolist() == literal


def test_target_that_holds_before_training_costs_nothing():
    """A hit at update 0 is a hit at cost 0."""
    assert outcome([0.1, 0.1], total=2) == (True, 0.0)


def test_order_of_rows_does_not_matter():
    """Curves are read by update, not by position in the table."""
    runs, curves = one_run([1.0, 0.1, 0.9, 0.1], total=6)
    target = Target(metric="val_loss", below=0.2)

    assert observe_targets(runs, curves[::-1], target)["time"].item() == 2.0


def test_follow_up_falls_back_on_the_last_evaluation():
    """A miss without a recorded total is censored at its last evaluation."""
    assert outcome([1.0, 0.9, 0.8], total=np.nan) == (False, 4.0)


def test_run_without_evaluations_is_a_miss():
    """A run that ended before its first evaluation is censored at its end."""
    runs, curves = one_run([1.0, 0.1], total=2)
    other = runs.assign(seed=1, update=7)
    observed = observe_targets(
        pd.concat([runs, other]), curves, Target(metric="val_loss", below=0.2)
    )

    assert observed["reached"].tolist() == [True, False]
    assert observed["time"].tolist() == [2.0, 7.0]


def test_diverged_run_is_a_miss_whatever_it_reached():
    """A run that passes the target and then diverges has not reached it."""
    assert outcome([1.0, 0.1, np.nan], status="diverged", total=4) == (False, 4.0)


@pytest.mark.parametrize("status", [*map(str, MISSING), None])
def test_failed_and_unfinished_runs_have_no_outcome(status):
    """Without a hit missing data are neither a hit nor a miss: the time is NaN."""
    reached, time = outcome([1.0, 0.9], status=status, total=2)

    assert not reached
    assert np.isnan(time)


@pytest.mark.parametrize("status", [*map(str, FAILED)])
def test_hit_before_a_failure_is_a_hit(status):
    """A later failure changes neither the hit nor its time."""
    assert outcome([1.0, 0.1, 0.9], status=status, total=4) == (True, 2.0)
    assert outcome([1.0, 0.1, 0.9], status=status, total=4, sustain=2)[0] is False


def ends(losses, updates, seconds=None, *, sustain=1, axis="updates"):
    """(earliest, time) of a run evaluated at these updates."""
    runs, curves = one_run(losses)
    curves = curves.assign(update=updates, seconds=seconds or updates)
    target = Target(metric="val_loss", below=0.2, sustain=sustain)
    row = observe_targets(runs, curves, target, axis).iloc[0]
    return row["earliest"], row["time"]


@pytest.mark.parametrize(
    ("losses", "updates", "expected"),
    [
        ([1.0, 0.1], [0, 1], (1.0, 1.0)),  # one update: nothing is left open
        ([1.0, 0.9, 0.1], [0, 4, 8], (5.0, 8.0)),
        ([1.0, 0.9, 0.1], [0, 4, 5], (5.0, 5.0)),
        ([1.0, 0.1], [0, 200], (1.0, 200.0)),
        ([0.1, 0.1], [0, 200], (0.0, 0.0)),  # before training: exactly
        ([0.1], [7], (1.0, 7.0)),  # no evaluation before: from the start of the run
        ([1.0, 0.1, 0.9, 0.1], [0, 4, 8, 12], (1.0, 4.0)),
    ],
)
def test_earliest_cost_is_one_update_after_the_evaluation_before(losses, updates, expected):
    """A hit lies after the last evaluation before it, by an update at least, and at its own."""
    assert ends(losses, updates) == expected


def test_earliest_cost_of_a_sustained_hit_is_that_of_its_stretch():
    """A dip that was not sustained is an evaluation before the hit like any other."""
    assert ends([1.0, 0.1, 0.9, 0.1, 0.1], [0, 4, 8, 12, 16], sustain=2) == (9.0, 12.0)


def test_earliest_cost_on_another_axis_is_that_of_one_update():
    """The updates between two evaluations cost the same."""
    assert ends([1.0, 0.9, 0.1], [0, 4, 8], [0.0, 10.0, 30.0], axis="seconds") == (15.0, 30.0)


def test_earliest_cost_without_a_cost_before_counts_from_the_start():
    """Where the previous evaluation has no cost on the axis, the bound is the start of the run."""
    assert ends([1.0, 0.9, 0.1], [0, 4, 8], [0.0, np.nan, 32.0], axis="seconds") == (4.0, 32.0)


def test_earliest_cost_of_a_miss_is_its_time():
    """A miss is censored at its end."""
    assert ends([1.0, 0.9, 0.8], [0, 4, 8]) == (8.0, 8.0)


def test_ablation_that_has_not_begun_has_no_outcome():
    """Without a single curve, not even an empty metric column, every run is missing."""
    runs, _ = one_run([], status=None)
    observed = observe_targets(runs, pd.DataFrame(), Target(metric="val_loss", below=0.2))

    assert observed["time"].isna().all()


def test_unknown_metric_names_the_known_ones():
    """The error lists the metrics of the curves and suggests the closest one."""
    with pytest.raises(ValueError, match=r"'val_los'.* val_loss.*'val_loss'"):
        observe_targets(*one_run([1.0]), Target(metric="val_los", below=0.2))


def test_a_metric_that_no_run_measured_is_a_fault_of_the_input():
    """With runs from before a problem had the metric, commands end with a one-line error."""
    with pytest.raises(InputError) as caught:
        observe_targets(*one_run([1.0]), Target(metric="val_accuracy", above=0.9))

    assert caught.value.lines[0].startswith("targets: the curves have no metric 'val_accuracy'")


def test_unknown_axis_names_the_known_ones():
    """The error lists the axes of a cost."""
    with pytest.raises(ValueError, match=r"'hours'.*updates, epochs"):
        observe_targets(*one_run([1.0]), Target(metric="val_loss", below=0.2), axis="hours")

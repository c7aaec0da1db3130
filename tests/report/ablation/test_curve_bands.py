"""Medians and quartiles over seeds, when runs do not all end at the same place."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from bdhf.records import Records
from bdhf.report.ablation.build import survival_curves
from bdhf.report.ablation.curve_bands import AT_BUDGET, AT_TARGET, DIVERGED, bands
from tests.report.synthetic import QUICKSTART, Arm, synthetic_records

SMOOTH = {"slow": Arm(tau=45.0, floor=0.006, noise=0.0), "fast": Arm(tau=25.0, noise=0.0)}
BAND = ["low", "median", "high"]


def band(records: Records, axis: str = "updates", arm: str = "fast") -> pd.DataFrame:
    """The validation band of one arm, by position."""
    table = bands(records, axis, ["val_loss"])
    return table[table["arm"] == arm].set_index("x")


def diverged(runs: int) -> dict[int, tuple[str, str]]:
    """The first so many seeds of an arm diverge."""
    return dict.fromkeys(range(runs), ("diverged", "nan"))


@pytest.mark.parametrize("seeds", [1, 2, 5, 8])
def test_quartiles_are_the_inverse_of_the_empirical_distribution(seeds):
    """Where every run is there, the quartiles are numpy's `inverted_cdf` quantiles."""
    records = synthetic_records(SMOOTH, seeds=seeds, stop_at_target=False)
    curves = records.curves[records.curves["arm"] == "fast"]
    values = curves.pivot(index="update", columns="seed", values="val_loss").to_numpy()

    expected = np.quantile(values, [0.25, 0.5, 0.75], axis=1, method="inverted_cdf").T

    np.testing.assert_array_equal(band(records)[BAND], expected)


@pytest.mark.parametrize("arm", SMOOTH)
@pytest.mark.parametrize("seeds", [4, 7, 8])
def test_stopping_at_the_target_moves_no_median(arm, seeds):
    """Up to its end the median of runs that stop is the median of the same runs gone on."""
    stopped = band(synthetic_records(SMOOTH, seeds=seeds), arm=arm)
    gone_on = band(synthetic_records(SMOOTH, seeds=seeds, stop_at_target=False), arm=arm)

    assert stopped["end"].iloc[-1] == AT_TARGET
    pd.testing.assert_series_equal(stopped["median"], gone_on.loc[stopped.index, "median"])
    pd.testing.assert_series_equal(stopped["high"], gone_on.loc[stopped.index, "high"])


def test_lower_edge_is_a_bound_once_a_quarter_have_stopped():
    """The lower quartile of runs that stop is never below that of the same runs gone on."""
    stopped = band(synthetic_records(SMOOTH))
    gone_on = band(synthetic_records(SMOOTH, stop_at_target=False)).loc[stopped.index]

    assert (stopped["low"] >= gone_on["low"]).all()
    assert (stopped["low"] > gone_on["low"]).any()


def test_a_line_ends_at_the_median_time_to_target():
    """A line that ends at the target does so where its survival curve reaches one half."""
    records = synthetic_records()
    steps = survival_curves(records)
    for arm in ("full_hf", "block_hf"):
        arm_steps = steps[(steps["arm"] == arm) & (steps["axis"] == "updates")]

        end = band(records, arm=arm).iloc[-1]

        assert end["end"] == AT_TARGET
        assert end.name == arm_steps.loc[arm_steps["surviving"] <= 0.5, "time"].iloc[0]
        assert end["median"] <= records.targets[0].below


def test_against_seconds_a_line_ends_at_the_shortest_follow_up():
    """Beyond the first end of a run that missed, the median cannot be known."""
    records = synthetic_records(SMOOTH, stop_at_target=False)
    fast = records.runs[records.runs["arm"] == "fast"]

    end = band(records, "seconds").iloc[-1]

    assert end["end"] == AT_BUDGET
    assert end.name == fast["seconds"].min()


def test_against_seconds_a_single_run_is_drawn_through_its_evaluations():
    """Positions differ from run to run; the line of one run is that run."""
    records = synthetic_records({"fast": SMOOTH["fast"]}, seeds=1)

    line = band(records, "seconds")

    assert line.index.tolist() == records.curves["seconds"].tolist()
    np.testing.assert_allclose(line["median"], records.curves["val_loss"], rtol=1e-12)


def test_against_seconds_stopping_moves_no_median_either():
    """The same theorem where every run is evaluated at positions of its own."""
    stopped = band(synthetic_records(SMOOTH), "seconds")
    gone_on = band(synthetic_records(SMOOTH, stop_at_target=False), "seconds")

    at_same = np.interp(stopped.index, gone_on.index, gone_on["median"])

    assert stopped["end"].iloc[-1] == AT_TARGET
    np.testing.assert_allclose(stopped["median"], at_same, rtol=2e-2)


def test_diverged_runs_rank_above_all_others():
    """With 2 of 8 runs diverged the median is the third best of the other six, from low to high."""
    arms = {"fast": dataclasses.replace(SMOOTH["fast"], status=diverged(2))}
    records = synthetic_records(arms, stop_at_target=False)
    whole = synthetic_records({"fast": SMOOTH["fast"]}, stop_at_target=False)
    others = whole.curves[whole.curves["seed"] >= 2]
    ranked = np.sort(others.pivot(index="update", columns="seed", values="val_loss"), axis=1)

    late = band(records).loc[20:]

    np.testing.assert_array_equal(late["median"], ranked[10:, 3])
    assert (late["runs"] == 8).all()


@pytest.mark.parametrize(("lost", "infinite"), [(2, False), (3, True), (4, True)])
def test_the_upper_edge_is_open_where_the_upper_quartile_diverged(lost, infinite):
    """Of 8 runs the sixth is the upper quartile; it is infinite once three have diverged."""
    arms = {"fast": dataclasses.replace(SMOOTH["fast"], status=diverged(lost))}

    last = band(synthetic_records(arms)).iloc[-1]

    assert math.isinf(last["high"]) == infinite
    assert np.isfinite(last["median"])


def test_a_line_ends_where_more_than_half_have_diverged():
    """With 5 of 8 runs diverged at update 14 the line goes no further, and says why."""
    arms = {"fast": dataclasses.replace(SMOOTH["fast"], status=diverged(5))}

    last = band(synthetic_records(arms)).iloc[-1]

    assert last["end"] == DIVERGED
    assert last.name <= 14


def test_runs_without_an_outcome_are_not_drawn():
    """Bands with failed runs equal bands of the records from which those runs are cut."""
    status = {0: ("error", "boom"), 1: ("timeout", "slow"), 2: (None, "")}
    arms = {"fast": dataclasses.replace(SMOOTH["fast"], status=status)}
    records = synthetic_records(arms)
    cut = dataclasses.replace(records, runs=records.runs[records.runs["seed"] > 2])

    table = bands(records, "updates", ["val_loss"])

    pd.testing.assert_frame_equal(table, bands(cut, "updates", ["val_loss"]))
    assert (table["runs"] == 5).all()


def test_an_evaluation_that_measured_nothing_is_passed_over():
    """A metric that is missing at some evaluations is drawn from the others alone."""
    records = synthetic_records({"fast": SMOOTH["fast"]}, seeds=1, stop_at_target=False)
    sparse = records.curves.assign(
        val_loss=records.curves["val_loss"].where(records.curves["update"] % 4 == 0)
    )

    line = band(dataclasses.replace(records, curves=sparse))["median"]

    pd.testing.assert_series_equal(line, band(records)["median"].loc[::2])


def test_long_curves_are_thinned_but_keep_both_ends():
    """A line never has more points than can be seen, and begins and ends where its runs do."""
    records = synthetic_records(QUICKSTART, updates=4000, stop_at_target=False)

    line = band(records, "seconds", "full_hf")

    assert 100 <= len(line) <= 160
    assert line.index[0] == 0
    assert line["end"].iloc[-1] == AT_BUDGET
    assert (line["end"].iloc[:-1] == "").all()

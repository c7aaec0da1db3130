"""Bounds on the costs of missing and diverged runs: a verdict holds for all of them."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from bdhf.records import Budget
from bdhf.stats.caveats.open_costs import missing_costs
from bdhf.stats.caveats.overturned import OF_DIVERGED_RUNS, OF_MISSING_PAIRS
from bdhf.stats.compare import compare
from bdhf.stats.inference.paired import outweighing, sign_flip
from bdhf.stats.observations.cost_bounds import slowest_cost
from bdhf.stats.observations.pairing import pair
from tests.stats.synthetic import BLOCK_VS_FULL, TARGET, synthetic

SECONDS = BLOCK_VS_FULL.model_copy(update={"estimand": "seconds_to_target"})
FAST, SLOW = [100, 101, 102, 103, 104, 105, 106, 107], [140, 141, 142, 143, 144, 145, 146, 147]


def timed(block, full, *, totals=None, safety=3600.0, entry=SECONDS, last=200, **options):
    """Records of seconds, 0.1 of them an update; `totals` of runs by id are (updates, seconds)."""
    records = synthetic(
        {"block": block, "full": full}, comparisons=(entry,), last=last,
        seconds={"block": 0.1, "full": 0.1}, **options,
    )  # fmt: skip
    runs = records.runs.copy()
    for run_id, spent in (totals or {}).items():
        runs.loc[runs["run_id"] == run_id, ["update", "seconds"]] = spent
    return dataclasses.replace(records, runs=runs, safety_seconds=safety)


def only(records):
    """The result of an ablation with one test."""
    (result,) = compare(records)
    return result


def ends(records, seed=0):
    """(least, most) of the run of `block` with a seed."""
    runs = pair(records, SECONDS, TARGET).candidate
    return runs.loc[seed, "least"], runs.loc[seed, "most"]


def unbounded(records):
    """Whether the result has the caveat of costs in seconds, and it names no number."""
    (flag,) = missing_costs(pair(records, SECONDS, TARGET), SECONDS, records.budget)
    return flag in only(records).flags and not any(map(str.isdecimal, flag))


@pytest.mark.parametrize("status", ["timeout", "oom", "error", "planned", "skipped"])
def test_a_missing_run_may_cost_the_budget_at_the_slowest_pace(status):
    """Without a miss, seconds decide nothing while a missing run could change the verdict."""
    totals = {"block-0": (200, 3600.0)} if status == "timeout" else {"block-1": (101, 30.3)}
    result = only(timed([status, *FAST[1:]], SLOW, totals=totals))

    assert result.p <= 0.05
    assert str(result.verdict) == "undecided"
    assert any(flag.startswith(f"{OF_MISSING_PAIRS}: better ") for flag in result.flags)


def test_a_run_that_gave_up_is_no_better_than_one_that_missed():
    """The same curve, ended by the time limit and at the budget, is undecided both times."""
    totals = {"block-0": (200, 3600.0)}
    gave_up = only(timed(["timeout", *FAST[1:]], SLOW, totals=totals))
    missed = only(timed([None, *FAST[1:]], SLOW, totals=totals))

    assert missed.ratio == pytest.approx(1.51, abs=0.01)
    assert str(missed.verdict) == str(gave_up.verdict) == "undecided"


def test_a_missing_run_that_could_not_overturn_it_leaves_the_verdict():
    """With a known pace and few missing runs the verdict holds, and a flag has the bounds."""
    block = ["oom", *[v // 4 for v in FAST * 2][1:]]
    result = only(timed(block, SLOW * 2, last=160))

    assert str(result.verdict) == "better"
    assert any(flag.startswith("A missing run counts as 1 to 16 seconds ") for flag in result.flags)


def test_ends_off_the_budget_are_what_was_spent_and_the_slowest_pace():
    """From the run's own seconds to those of the budget at the pace of its arm's slowest run."""
    totals = {"block-0": (10, 1.5), "block-3": (103, 20.6)}

    assert ends(timed(["oom", *FAST[1:]], SLOW, totals=totals)) == (1.5, pytest.approx(40.0))
    assert ends(timed(["planned", *FAST[1:]], SLOW)) == (0.0, pytest.approx(20.0))


def test_the_limit_of_wall_clock_is_a_lower_bound_of_the_most_alone():
    """The limit includes evaluation, so the lower bound is the recorded cost."""
    records = timed(["timeout", *FAST[1:]], SLOW, safety=1800.0)
    later = timed(["timeout", *FAST[1:]], SLOW, safety=1800.0, totals={"block-0": (50, 1900.0)})

    assert ends(records) == (1.0, 1800.0)
    assert ends(later) == (1900.0, pytest.approx(200 / 50 * 1900.0))


def test_wall_clock_is_no_lower_end_of_seconds_of_training():
    """A baseline that was stopped during evaluation may have been as fast: not `better`."""
    slow = [40, 41, 42, 43, 44, 45, "timeout"]
    result = only(timed(FAST[:7], [10 * v for v in slow[:6]] + slow[6:], last=600, safety=60.0))

    assert result.p <= 0.05
    assert str(result.verdict) == "undecided"
    assert any(flag.startswith("A missing run counts as 1 to 60 seconds ") for flag in result.flags)


def test_a_time_out_before_any_seconds_were_recorded_bounds_nothing():
    """It was slower than its arm's other runs, by an unknown factor."""
    totals = {"block-0": (0, 0.0)}
    records = timed(["timeout", *FAST[1:]], SLOW, totals=totals)
    curves = records.curves[
        (records.curves["run_id"] != "block-0") | (records.curves["update"] < 1)
    ]
    records = dataclasses.replace(records, curves=curves)

    assert ends(records) == (0.0, np.inf)
    assert unbounded(records)
    assert ends(timed(["error", *FAST[1:]], SLOW, totals=totals)) == (0.0, pytest.approx(20.0))


@pytest.mark.filterwarnings("error")
def test_a_baseline_that_may_cost_anything_warns_of_nothing():
    """Its log ratio at best is -inf without a warning; bounds stay as they are."""
    records = timed(FAST, ["timeout", *SLOW[1:]], totals={"full-0": (0, 0.0)})
    curves = records.curves[(records.curves["run_id"] != "full-0") | (records.curves["update"] < 1)]
    result = only(dataclasses.replace(records, curves=curves))

    assert (result.p <= 0.05, str(result.verdict)) == (True, "undecided")


def test_ends_that_are_one_are_reported_as_one():
    """A run that spent the budget at the slowest pace counts as that."""
    totals = {"block-0": (200, 1800.0)}
    result = only(timed(["timeout", *FAST[1:]], SLOW, safety=1800.0, totals=totals))

    assert any(flag.startswith("A missing run counts as 1800 seconds") for flag in result.flags)


def test_a_time_out_says_nothing_of_other_axes():
    """A limit of seconds does not bound epochs."""
    entry = SECONDS.model_copy(update={"estimand": "epochs_to_target"})
    records = timed(["timeout", *FAST[1:]], SLOW, entry=entry)
    tables = [table.assign(epoch=table["update"] / 10) for table in (records.runs, records.curves)]
    records = dataclasses.replace(records, runs=tables[0], curves=tables[1])
    runs = pair(records, entry, TARGET).candidate

    assert (runs.loc[0, "least"], runs.loc[0, "most"]) == (1.0, pytest.approx(20.0))


def test_where_a_miss_restricts_the_costs_it_restricts_the_ends():
    """A missing run costs no more than the horizon that all runs share."""
    records = timed(["timeout", None, *FAST[2:]], SLOW)
    later = timed(["timeout", None, *FAST[2:]], SLOW, totals={"block-0": (50, 1900.0)})

    assert ends(records) == (1.0, 20.0)
    assert ends(later) == (20.0, 20.0)


def test_where_no_pace_is_known_no_verdict_rests_on_the_missing():
    """Without a pace of the arm, the pair outweighs all others."""
    block = ["oom", *FAST[1:]]
    records = timed(block, SLOW)
    unknown = dataclasses.replace(
        records, runs=records.runs.assign(update=np.nan),
        curves=records.curves.assign(update=lambda t: t.groupby(["arm", "seed"]).cumcount()),
        budget=Budget(products=1000),
    )  # fmt: skip
    result = only(unknown)

    assert ends(unknown) == (1.0, np.inf)
    assert result.p <= 0.05
    assert str(result.verdict) == "undecided"
    assert unbounded(unknown)


def test_pairs_apart_may_cost_anything_their_arm_could():
    """Seconds on other hardware are no lower bound."""
    records = timed(FAST, SLOW)
    where = pd.DataFrame({"run_id": records.runs["run_id"], "cpu": "x"})
    where.loc[where["run_id"] == "block-0", "cpu"] = "y"
    records = dataclasses.replace(records, environments=where)

    assert ends(records) == (0.0, pytest.approx(20.0))
    assert str(only(records).verdict) == "undecided"


def test_a_third_that_diverges_is_not_better_in_seconds():
    """Four of twelve count as the budget, as they do in updates."""
    block = ["diverged"] * 4 + FAST
    full = [*SLOW, *SLOW[:4]]
    result = only(timed(block, full, last=1000))

    assert result.horizon == pytest.approx(100.0)
    assert str(result.verdict) == "undecided"
    assert str(only(timed(block, full, last=1000, entry=BLOCK_VS_FULL)).verdict) == "undecided"


def test_a_verdict_holds_for_whatever_a_diverged_run_counts_as():
    """A verdict that needs a diverged run to count as the whole budget is undecided."""
    block, full = [110] * 6 + [112, 114], ["diverged"] * 6 + [100, 100]
    result = only(timed(block, full, last=1000))

    assert result.p <= 0.05
    assert str(result.verdict) == "undecided"
    assert any(flag.startswith(OF_DIVERGED_RUNS) for flag in result.flags)
    assert str(only(timed(FAST, ["diverged"] * 8, last=1000)).verdict) == "better"


def test_a_verdict_that_depends_on_diverged_and_missing_runs_names_both():
    """The flag has both reasons, because the second remains after the missing run is made."""
    block, full = [110] * 6 + [112, 114, "oom"], ["diverged"] * 6 + [100, 100, 100]
    result = only(timed(block, full, last=1000))

    assert str(result.verdict) == "undecided"
    (flag,) = [flag for flag in result.flags if flag.startswith(f"{OF_MISSING_PAIRS}, or on ")]
    assert "diverged" in flag
    assert re.findall("better|undecided", flag) == ["better", "better", "undecided"]


def test_a_diverged_run_of_an_arm_without_a_pace_is_missing():
    """Runs that diverged before their first update have no pace."""
    totals = {f"block-{seed}": (0, 0.0) for seed in range(8)}
    result = only(timed(["diverged"] * 8, SLOW, totals=totals))

    assert (result.pairs, result.planned) == (0, 8)
    assert str(result.verdict) == "undecided"
    assert str(only(timed(["diverged"] * 8, SLOW, entry=BLOCK_VS_FULL)).verdict) == "worse"


def test_every_fill_off_the_budget_lies_between_the_bounds():
    """For all costs of the missing runs within their bounds, p and interval lie between."""
    rng = np.random.default_rng(0)
    block, full = rng.integers(20, 90, 8).tolist(), rng.integers(20, 90, 8).tolist()
    failed = timed([*block[:6], "oom", "planned"], full)
    pairs = pair(failed, SECONDS, TARGET)
    best, worst = (sign_flip(pairs.filled(best=side).effects()) for side in (True, False))
    missing = pairs.candidate.iloc[6:]

    for share in rng.random((20, 2)):
        cost = missing["least"] + share * (missing["most"] - missing["least"])
        candidate = pairs.candidate.assign(cost=pairs.candidate["cost"].fillna(cost))
        test = sign_flip(dataclasses.replace(pairs, candidate=candidate).log_ratios())
        assert best.low <= test.low <= worst.low
        assert best.high <= test.high <= worst.high


def test_an_infinite_difference_is_the_largest():
    """Its p is the limit for a growing difference."""
    d = np.array([-0.3, -0.2, 0.1, -0.4, np.inf, -0.25])
    far = np.where(np.isinf(d), 1e9, d)

    assert sign_flip(outweighing(d)).p == sign_flip(far).p
    assert sign_flip(outweighing(-d)).p == sign_flip(-far).p
    assert outweighing(d[:4]).tolist() == d[:4].tolist()


def test_the_slowest_pace_is_that_of_the_arm():
    """Every run of an arm gets the largest cost per unit of the budget, times the budget."""
    rng = np.random.default_rng(1)
    observed = pd.DataFrame({"arm": ["a", "b"] * 10, "spent": rng.random(20)})
    progress = pd.Series(rng.integers(1, 9, 20).astype(float))
    expected = {
        arm: max(s / p for s, p, a in zip(observed["spent"], progress, observed["arm"], strict=True)
                 if a == arm)
        for arm in ("a", "b")
    }  # fmt: skip

    np.testing.assert_allclose(
        slowest_cost(observed, progress, 7.0), [7 * expected[arm] for arm in observed["arm"]]
    )

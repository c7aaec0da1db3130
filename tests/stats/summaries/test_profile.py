"""Performance profiles: ratios to the best of every instance, misses infinite, nothing dropped."""

import dataclasses
import math

import pytest

from bdhf.stats.summaries.costs import costs, label_without, problem_axes
from bdhf.stats.summaries.profile import COLUMNS, performance_profiles
from tests.stats.synthetic import TARGET, synthetic


def lines(records):
    """The steps of every solver: ratio and share."""
    table = performance_profiles(records)
    return {
        arm: list(zip(line["ratio"], line["share"], strict=True))
        for arm, line in table.groupby("arm", sort=False)
    }


def test_shares_are_those_of_the_definition():
    """Three seeds by hand: ties count as best twice, and a miss never counts."""
    records = synthetic({"block": [10, 20, 30], "full": [20, 20, None]})

    assert lines(records) == {
        "block": [(1.0, 1.0)],
        "full": [(1.0, pytest.approx(1 / 3)), (2.0, pytest.approx(2 / 3))],
    }


def test_an_instance_that_nobody_solves_counts():
    """It lowers the share of every solver, at any ratio."""
    records = synthetic({"block": [10, None], "full": [20, "diverged"]})

    assert lines(records) == {"block": [(1.0, 0.5)], "full": [(1.0, 0.0), (2.0, 0.5)]}


def test_an_instance_with_missing_data_is_left_out_and_counted():
    """A failed run excludes its instance for all solvers."""
    table = performance_profiles(synthetic({"block": [10, 20, "oom"], "full": [20, "planned", 10]}))

    assert set(table["instances"]) == {1}
    assert set(table["left_out"]) == {2}
    assert tuple(table.columns) == COLUMNS


def test_a_solver_without_any_outcome_is_left_out_alone():
    """The instances of the others stay; below two solvers there is no profile."""
    idle = ["planned"] * 2

    assert set(performance_profiles(synthetic({"a": [1, 2], "b": [2, 1], "c": idle}))["arm"]) == {
        "a",
        "b",
    }
    assert performance_profiles(synthetic({"a": [1, 2], "b": idle})).empty
    assert performance_profiles(synthetic({"a": [1, 2], "b": [2, 1]}, targets=())).empty


def problems():
    """Two solvers on two problems; the grid also varies the damping of one of them."""
    ends = {
        "hf damping=1 problem.data=a": [10, 20],
        "hf damping=1 problem.data=b": [90, 90],
        "hf damping=10 problem.data=a": [20, 20],
        "hf damping=10 problem.data=b": [45, 30],
        "adam problem.data=a": [30, 40],
        "adam problem.data=b": [90, 60],
    }
    values = {arm: {"problem.data": arm[-1]} for arm in ends}
    for arm in list(ends)[:4]:
        values[arm] = {"arms.hf.damping": arm.split()[1].split("=")[1], **values[arm]}
    return dataclasses.replace(synthetic(ends), values=values)


def test_instances_are_problems_with_seeds():
    """The axes of the problem leave the label; those of the solver stay in it."""
    table = performance_profiles(problems())

    assert list(table["arm"].drop_duplicates()) == ["adam", "hf damping=1", "hf damping=10"]
    assert set(table["instances"]) == {4}
    assert lines(problems())["adam"] == [(1.0, 0.0), (2.0, 0.75), (3.0, 1.0)]


def test_a_value_leaves_a_label_only_as_a_whole():
    """`b=1` is not cut out of `b=10`, and the longest ending of a path goes first."""
    records = dataclasses.replace(
        synthetic({"hf b=10 data.b=1 a=2": [1]}),
        values={"hf b=10 data.b=1 a=2": {"arms.hf.b": "10", "problem.data.b": "1", "a": "2"}},
    )
    (arm,) = records.arms

    assert problem_axes(records) == ["problem.data.b"]
    assert label_without(records, arm, ["problem.data.b"]) == "hf b=10 a=2"
    assert label_without(records, arm, ["arms.hf.b"]) == "hf data.b=1 a=2"


def test_costs_are_restricted_at_the_smallest_budget_of_a_problem():
    """A solver with a larger budget gains no hits by it: the others were not observed so far."""
    records = synthetic({"block": [10, 150], "full": [20, 90]}, last=200)
    short = records.budget.model_copy(update={"updates": 100})
    records = dataclasses.replace(records, budgets={"full": short})

    table = costs(records, TARGET)

    assert table["cost"].tolist() == [10, 100, 20, 90]
    assert table["hit"].tolist() == [True, False, True, True]


def test_the_order_of_the_records_does_not_matter():
    """Rows and arms in any order give the same table."""
    records = problems()
    turned = dataclasses.replace(
        records, arms=records.arms[::-1], runs=records.runs[::-1], curves=records.curves[::-1]
    )

    assert performance_profiles(turned).equals(performance_profiles(records))
    assert math.isfinite(performance_profiles(records)["ratio"].max())

"""One table of costs over all arms, on the budget's axis, split into problems and solvers.

A grid whose axes begin with `problem` solves several problems with the same solvers: an arm
`hf problem=mlp` is the solver `hf` on the problem `problem=mlp`. Without such an axis there is one
problem, and every arm is a solver.
"""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from bdhf.records import Records, Target
from bdhf.stats.observations.cost_bounds import restricted
from bdhf.stats.observations.restriction import smallest_cost

_COLUMNS = ("problem", "solver", "arm", "seed", "cost", "hit")


def costs(records: Records, target: Target) -> pd.DataFrame:
    """The cost of every run to reach the target: `problem, solver, arm, seed, cost, hit`.

    `cost`, in units of the budget's axis, is restricted at the smallest budget of the problem's
    arms (see `restriction`), at least one step of the grid on which costs are observed, and NaN
    where data are missing; `hit`: whether the target was reached within that budget.

    Raises ValueError for a target whose metric the curves do not have.
    """
    axes = problem_axes(records)
    problems: dict[str, list[str]] = {}
    for arm in records.arms:
        problems.setdefault(_values(records, arm, axes), []).append(arm)
    parts = [
        _of_problem(records, target, arms).assign(problem=problem)
        for problem, arms in problems.items()
    ]
    if not parts:
        return pd.DataFrame(columns=list(_COLUMNS))
    table = pd.concat(parts, ignore_index=True)
    solvers = {arm: label_without(records, arm, axes) for arm in records.arms}
    return table.assign(solver=table["arm"].map(solvers))[list(_COLUMNS)]


def by_instance(table: pd.DataFrame) -> pd.DataFrame:
    """Pivot the costs: a row per problem and seed, a column per solver, NaN where one is missing.

    Raises ValueError where a solver has two runs of one instance.
    """
    cells = table.pivot(index=["problem", "seed"], columns="solver", values="cost")
    return cells[list(table["solver"].drop_duplicates())]


def problem_axes(records: Records) -> list[str]:
    """The axes of the grid that vary the problem."""
    axes = dict.fromkeys(axis for values in records.values.values() for axis in values)
    return [axis for axis in axes if axis.split(".")[0] == "problem"]


def label_without(records: Records, arm: str, axes: Collection[str]) -> str:
    """The label of an arm without the values of some axes of the grid."""
    label = arm
    for axis, value in records.values.get(arm, {}).items():
        if axis in axes:
            label = _cut(label, axis.split("."), value)
    return label


def _cut(label: str, keys: list[str], value: str) -> str:
    """Remove ` keys=value` from a label, which has as many of the last keys as it needs."""
    for start in range(len(keys)):
        part = f" {'.'.join(keys[start:])}={value}"
        head, separator, rest = label.partition(part)
        if separator and rest[:1] in ("", " "):
            return head + rest
    return label


def _values(records: Records, arm: str, axes: Collection[str]) -> str:
    values = records.values.get(arm, {})
    return " ".join(f"{axis}={values[axis]}" for axis in axes if axis in values)


def _of_problem(records: Records, target: Target, arms: list[str]) -> pd.DataFrame:
    """The costs of the arms of one problem, with one horizon for all of them."""
    budget = records.budget_of(*arms)
    axis = budget.axis
    runs = records.runs[records.runs["arm"].isin(arms)]
    table, _ = restricted(runs, records.curves, target, axis, budget)
    floor = smallest_cost(table, records.curves, axis)
    return table.assign(cost=table["cost"].clip(lower=floor))

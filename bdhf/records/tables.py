"""A results folder as tidy tables, with the settings of its spec and its plan."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pandas as pd

from bdhf.records.columns import CELL
from bdhf.records.comparison import Comparison
from bdhf.records.schema import SAFETY_SECONDS, Budget, Status, Target
from bdhf.records.tuning import Tuned
from bdhf.records.twins import twins_among
from bdhf.records.uncounted import uncounted

_T = TypeVar("_T")


@dataclass(frozen=True, repr=False)
class Records:
    """All results of an ablation, as tidy tables.

    `arms` and `comparisons` name arms by their labels, one for every combination of a grid that
    changes its runs. `budget` is the largest one, and `evaluate_every` the largest interval;
    `budgets` and `intervals` are those of single arms, where they differ. `values` has what a grid
    varies: label -> axis -> value in words. `questions` are the names of the spec's comparisons;
    those of its grid begin with them. `figures` are those that the spec selects; None: all.
    `tuning` describes how the settings of the arms were chosen; None: the spec names no study.
    `safety_seconds` is the wall-clock limit of a run. `twins` are comparisons of arms that are the
    same runs: those among `comparisons` are moved there, and only the others are tests.

    `runs`: one row per planned cell: `arm, seed, run_id, status, reason` and the end of its curve;
    a cell without a whole run has status None, and one that the plan leaves out is `skipped`.
    `curves`: one row per cell and evaluation: `arm, seed, run_id` and the columns of a curve.
    `environments`: one row per run that has ended.
    """

    name: str
    spec_text: str
    arms: tuple[str, ...]
    targets: tuple[Target, ...]
    comparisons: tuple[Comparison, ...]
    budget: Budget
    alpha: float
    evaluate_every: int
    runs: pd.DataFrame
    curves: pd.DataFrame
    environments: pd.DataFrame  # run_id and the fields of its env.json
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    intervals: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)  # label -> the arm of the spec
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    questions: tuple[str, ...] = ()
    stops_at_target: bool = False
    figures: tuple[str, ...] | None = None
    tuning: Tuned | None = None
    safety_seconds: float = SAFETY_SECONDS
    twins: tuple[Comparison, ...] = ()

    def __post_init__(self) -> None:
        """Move comparisons of a run with itself from `comparisons` to `twins`."""
        if not self.comparisons or not {*CELL} <= {*self.runs.columns}:
            return
        cells = self.runs[list(CELL)].itertuples(index=False, name=None)
        twins = twins_among(self.comparisons, cells)
        if twins:
            rest = tuple(entry for entry in self.comparisons if entry not in twins)
            object.__setattr__(self, "comparisons", rest)
            moved = tuple(entry for entry in twins if entry not in self.twins)
            object.__setattr__(self, "twins", (*self.twins, *moved))

    def __repr__(self) -> str:
        """A summary of the runs, the arms and the tables."""
        ended = self.runs["status"].notna() & (self.runs["status"] != str(Status.SKIPPED))
        why = self.runs["reason"].map(uncounted)
        counts = Counter(self.runs["status"].astype(object).fillna(why))  # of equals, the first
        words = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        arms = textwrap.shorten(", ".join(self.arms), 80, placeholder=" …")
        return (
            f"Records of {self.name}: {ended.sum()} of {len(self.runs)} runs have ended ({words})\n"
            f"  {len(self.arms)} arms: {arms}\n"
            f"  .runs: {_size(self.runs)}, a row per planned run\n"
            f"  .curves: {_size(self.curves)}, a row per evaluation\n"
            f"  .environments: {_size(self.environments)}, a row per run that has ended"
        )

    def in_order(self) -> Records:
        """The same with sorted arms, and all rows by arm, seed and update.

        Results from it do not depend on the order of arms, seeds or files.
        """
        arms = tuple(sorted(self.arms, key=natural))
        runs = _ordered(self.runs, arms)
        rank = {run_id: i for i, run_id in enumerate(runs["run_id"].drop_duplicates())}
        environments = self.environments
        if len(environments):
            environments = environments.sort_values(
                "run_id", key=lambda ids: ids.map(rank), kind="stable"
            )
        return replace(
            self,
            arms=arms,
            runs=runs,
            curves=_ordered(self.curves, arms),
            environments=environments.reset_index(drop=True),
            budgets=_of_arms(self.budgets, arms),
            intervals=_of_arms(self.intervals, arms),
            names=_of_arms(self.names, arms),
            values=_of_arms(self.values, arms),
            tuning=self.tuning and self.tuning.in_order(arms),
        )

    def budget_of(self, *arms: str) -> Budget:
        """The smallest budget of these arms, up to which all of them were run."""
        budgets = [self.budgets.get(arm, self.budget) for arm in arms]
        return min(budgets, key=lambda budget: budget.limit)

    def values_of(self, axis: str) -> dict[str, str]:
        """The value in words of an axis of the grid, of every arm that varies on it."""
        return {arm: v[axis] for arm, v in self.values.items() if axis in v}

    def shows(self, figure: str) -> bool:
        """Whether the report shows a figure: the spec selects it, or selects none."""
        return self.figures is None or figure in self.figures

    def question_of(self, comparison: str) -> str:
        """The comparison of the spec that this one, a combination of the grid, belongs to."""
        names = [q for q in self.questions if comparison == q or comparison.startswith(f"{q} ")]
        return max(names, key=len, default=comparison)

    def evaluate_every_of(self, *arms: str) -> int:
        """The largest interval of evaluation of these arms, in updates."""
        return max(self.intervals.get(arm, self.evaluate_every) for arm in arms)


def _of_arms(of: Mapping[str, _T], arms: Sequence[str]) -> dict[str, _T]:
    return {arm: of[arm] for arm in arms if arm in of}


def _size(table: pd.DataFrame) -> str:
    return f"{len(table):,} rows × {table.shape[1]} columns"


def natural(label: str) -> tuple[Any, ...]:
    """Key for the natural order of labels: `b=25` before `b=100`.

    >>> sorted(["hf b=100", "adam", "hf b=25"], key=natural)
    ['adam', 'hf b=25', 'hf b=100']
    """
    parts = re.split(r"(\d+(?:\.\d+)?)", label)
    return (*((float(p), "") if i % 2 else (-1.0, p) for i, p in enumerate(parts)), label)


def _ordered(table: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """Rows by arm, seed and update."""
    if table.empty:
        return table
    rank = table["arm"].map({arm: i for i, arm in enumerate(arms)}).fillna(len(arms))
    keys = [name for name in ("arm", "seed", "update") if name in table]
    ordered = table.assign(_rank=rank).sort_values(["_rank", *keys], kind="stable")
    return ordered.drop(columns="_rank").reset_index(drop=True)

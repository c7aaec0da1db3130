"""The one reader: a results folder as tidy tables."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bdhf.records.columns import CELL
from bdhf.records.files import UNREADABLE, InputError, in_brief, read_table
from bdhf.records.schema import Budget, Comparison, PlanIndex, PlannedArm, Status, Target
from bdhf.records.version import PLAN_INDEX, read_record, refuse_newer


@dataclass(frozen=True, repr=False)
class Records:
    """Everything that an ablation left behind, as tidy tables.

    `arms` and `comparisons` name arms by their labels, one for every combination of a grid that
    makes other runs. `budget` is the largest one, and `evaluate_every` the largest interval;
    `budgets` and `intervals` are those of single arms, where they differ.

    `runs`: one row per planned cell: `arm, seed, run_id, status, reason` and where its curve ends;
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

    def __repr__(self) -> str:
        """What there is, and which tables to look at."""
        ended = self.runs["status"].notna() & (self.runs["status"] != str(Status.SKIPPED))
        why = self.runs["reason"].astype(str).str.partition(":")[0]  # "torn" or "not run yet"
        counts = self.runs["status"].astype(object).fillna(why).value_counts()
        words = ", ".join(f"{count} {name}" for name, count in counts.items())
        arms = textwrap.shorten(", ".join(self.arms), 80, placeholder=" …")
        return (
            f"Records of {self.name}: {ended.sum()} of {len(self.runs)} runs have ended ({words})\n"
            f"  {len(self.arms)} arms: {arms}\n"
            f"  .runs: {_size(self.runs)}, a row per planned run\n"
            f"  .curves: {_size(self.curves)}, a row per evaluation\n"
            f"  .environments: {_size(self.environments)}, a row per run that has ended"
        )

    def budget_of(self, *arms: str) -> Budget:
        """The smallest budget of these arms, up to which all of them were run."""
        budgets = [self.budgets.get(arm, self.budget) for arm in arms]
        return min(budgets, key=lambda budget: budget.limit)

    def evaluate_every_of(self, *arms: str) -> int:
        """The largest interval of evaluation of these arms, in updates."""
        return max(self.intervals.get(arm, self.evaluate_every) for arm in arms)


def _size(table: pd.DataFrame) -> str:
    return f"{len(table):,} rows × {table.shape[1]} columns"


class _Spec(BaseModel):
    """What the tables need of spec.yaml, which was checked before it was run."""

    name: str
    alpha: float = 0.05
    targets: tuple[Target, ...] = ()


def load(folder: str | Path) -> Records:
    """Read the collected tables of one ablation's results folder.

    Raises InputError when the folder holds no collected ablation, or one of a newer version.
    """
    folder = Path(folder)
    refuse_newer(folder)
    missing = [
        n for n in ("spec.yaml", "runs.parquet", "curves.parquet") if not (folder / n).exists()
    ]
    if missing:
        raise InputError(
            [
                f"{folder}: no {', '.join(missing)}: not the results of an ablation; "
                f"`bdhf run SPEC --out {folder}` makes them"
            ]
        )
    text, spec, index = _what_was_asked(folder)
    runs = read_table(folder / "runs.parquet", [*CELL, "status", "reason"])
    ended = runs.loc[runs["status"].notna(), "run_id"].drop_duplicates()
    return Records(
        name=spec.name,
        spec_text=text,
        arms=tuple(arm.label for arm in index.arms),
        targets=spec.targets,
        comparisons=index.comparisons,
        budget=max((arm.budget for arm in index.arms), key=lambda budget: budget.limit),
        alpha=spec.alpha,
        evaluate_every=max(arm.evaluate_every for arm in index.arms),
        runs=runs,
        curves=read_table(folder / "curves.parquet", [*CELL, "update"]),
        environments=_environments(folder, ended),
        budgets={arm.label: arm.budget for arm in index.arms},
        intervals={arm.label: arm.evaluate_every for arm in index.arms},
    )


def _what_was_asked(folder: Path) -> tuple[str, _Spec, PlanIndex]:
    """The text of the spec, what it says, and its arms and comparisons."""
    path = folder / "spec.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        content = YAML(typ="safe", pure=True).load(text)
        spec = _Spec.model_validate(content)
        path = folder / PLAN_INDEX
        if path.exists():
            return text, spec, PlanIndex.model_validate({"records": 0, **read_record(path)})
        path = folder / "spec.yaml"
        return text, spec, _index_of(content)
    except (YAMLError, *UNREADABLE) as error:
        fault = f"cannot be read ({in_brief(error)}); `bdhf run` writes it anew"
        raise InputError([f"{path}: {fault}"]) from None


def _index_of(spec: Mapping[str, Any]) -> PlanIndex:
    """The arms and comparisons of a spec beside which an older version left no plan.json."""
    every = int(spec.get("evaluate", {}).get("every_updates", 1))
    budget = Budget(**spec["budget"])
    return PlanIndex(
        records=0,
        arms=tuple(
            PlannedArm(label=name, name=name, budget=budget, evaluate_every=every)
            for name in spec["arms"]
        ),
        comparisons=tuple(Comparison(**entry) for entry in spec.get("compare", [])),
    )


def _environments(folder: Path, run_ids: Iterable[str]) -> pd.DataFrame:
    """Where each finished run ran; a run without a readable env.json has no row."""
    rows: list[dict[str, Any]] = []
    for run_id in run_ids:
        try:
            content = read_record(folder / "runs" / run_id / "env.json")
        except (InputError, *UNREADABLE):
            continue
        rows.append({"run_id": run_id} | content | {"run_id": run_id})
    return pd.DataFrame(rows)

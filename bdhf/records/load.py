"""`load`: everything that an ablation left behind, as tidy tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from bdhf.records.files import check_version, read_table
from bdhf.records.schema import (
    PLAN_INDEX,
    Budget,
    Comparison,
    InputError,
    PlanIndex,
    PlannedArm,
    Target,
)


@dataclass(frozen=True)
class Records:
    """Everything that an ablation left behind, as tidy tables.

    `arms` and `comparisons` name arms by their labels, one for every combination of a grid that
    makes other runs. `budget` is the largest one, and `evaluate_every` the largest interval;
    `budgets` and `intervals` are those of single arms, where they differ.

    `runs`: one row per planned cell: `arm, seed, run_id, status, reason` and where its curve ends;
    a cell that has not run yet has status None, and one that the plan leaves out is `skipped`.
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

    def budget_of(self, *arms: str) -> Budget:
        """The smallest budget of these arms, up to which all of them were run."""
        budgets = [self.budgets.get(arm, self.budget) for arm in arms]
        return min(budgets, key=lambda budget: budget.limit)

    def evaluate_every_of(self, *arms: str) -> int:
        """The largest interval of evaluation of these arms, in updates."""
        return max(self.intervals.get(arm, self.evaluate_every) for arm in arms)


def load(folder: str | Path) -> Records:
    """Read the collected tables of one ablation's results folder.

    Raises InputError when the folder holds no collected ablation.
    """
    folder = Path(folder)
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
    text = (folder / "spec.yaml").read_text(encoding="utf-8")
    spec = YAML(typ="safe", pure=True).load(text)
    runs, index = read_table(folder / "runs.parquet"), _index(folder, spec)
    return Records(
        name=spec["name"],
        spec_text=text,
        arms=tuple(arm.label for arm in index.arms),
        targets=tuple(Target(**target) for target in spec.get("targets", [])),
        comparisons=index.comparisons,
        budget=max((arm.budget for arm in index.arms), key=lambda budget: budget.limit),
        alpha=float(spec.get("alpha", 0.05)),
        evaluate_every=max(arm.evaluate_every for arm in index.arms),
        runs=runs,
        curves=read_table(folder / "curves.parquet"),
        environments=_environments(folder, runs["run_id"].drop_duplicates()),
        budgets={arm.label: arm.budget for arm in index.arms},
        intervals={arm.label: arm.evaluate_every for arm in index.arms},
    )


def _index(folder: Path, spec: Mapping[str, Any]) -> PlanIndex:
    """The arms and comparisons of plan.json, or of the spec where an older version left none."""
    path = folder / PLAN_INDEX
    check_version(folder)
    if path.exists():
        try:
            return PlanIndex.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            first = str(error).splitlines()[0]
            raise InputError(
                [f"{path}: cannot be read ({first}); `bdhf run` writes it anew"]
            ) from None
    every = int(spec.get("evaluate", {}).get("every_updates", 1))
    budget = Budget(**spec["budget"])
    return PlanIndex(
        arms=tuple(
            PlannedArm(label=name, name=name, budget=budget, evaluate_every=every)
            for name in spec["arms"]
        ),
        comparisons=tuple(Comparison(**entry) for entry in spec.get("compare", [])),
    )


def _environments(folder: Path, run_ids: pd.Series[str]) -> pd.DataFrame:
    """Where each finished run ran; a run without a readable env.json has no row."""
    rows: list[dict[str, Any]] = []
    for run_id in run_ids:
        try:
            text = (folder / "runs" / run_id / "env.json").read_text(encoding="utf-8")
            rows.append({"run_id": run_id, **json.loads(text)})
        except (OSError, ValueError, TypeError):
            continue
    return pd.DataFrame(rows)

"""The only reader: a results folder as tidy tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from pydantic import BaseModel, Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bdhf.records.columns import CELL
from bdhf.records.comparison import Comparison
from bdhf.records.disk.files import (
    UNREADABLE,
    InputError,
    in_brief,
    read_table,
    read_whole,
    table_sums,
)
from bdhf.records.disk.version import PlanFile, refuse_newer
from bdhf.records.index import PlanIndex, PlannedArm
from bdhf.records.run import read_environment
from bdhf.records.schema import SAFETY_SECONDS, Budget, Target
from bdhf.records.tables import Records
from bdhf.records.tuning import refuse_study


class _Entry(BaseModel):
    name: str


class _Report(BaseModel):
    figures: tuple[str, ...] | None = None


class _Safety(BaseModel):
    seconds: float = SAFETY_SECONDS


class _Spec(BaseModel):
    """The part of spec.yaml that the tables need; it was checked before the runs."""

    name: str
    alpha: float = 0.05
    targets: tuple[Target, ...] = ()
    stop: str = "at_budget"
    compare: tuple[_Entry, ...] = ()
    report: _Report = Field(default_factory=lambda: _Report())
    safety: _Safety = Field(default_factory=lambda: _Safety())


def load(
    folder: str | Path,
    tables: Mapping[str, bytes] = MappingProxyType({}),
    *,
    checked: bool = True,
) -> Records:
    """Read the collected tables of one ablation's results folder.

    `tables`: file name -> content of tables that are not read from the folder, from `collected`
    where nothing can be written. `checked` False also reads a spec.yaml and a plan.json that differ
    from what was written.

    Raises InputError when the folder holds no collected ablation, or one of a newer version.
    """
    folder = Path(folder)
    plan = refuse_newer(folder)
    needed = ("spec.yaml", "runs.parquet", "curves.parquet")
    missing = [n for n in needed if n not in tables and not (folder / n).exists()]
    if missing:
        refuse_study(folder)
        raise InputError(
            [
                f"{folder}: no {', '.join(missing)}: not the results of an ablation; "
                f"`bdhf run SPEC --out {folder}` writes them"
            ]
        )
    sums = table_sums(folder / "plan.parquet") if checked else {}
    text, spec, index = _read_plan(folder, plan, sums)
    runs, curves = (
        read_table(folder / name, [*CELL, *columns], content=tables.get(name))
        for name, columns in (
            ("runs.parquet", ("status", "reason")),
            ("curves.parquet", ("update",)),
        )
    )
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
        curves=curves,
        environments=_environments(folder, ended),
        budgets={arm.label: arm.budget for arm in index.arms},
        intervals={arm.label: arm.evaluate_every for arm in index.arms},
        names={arm.label: arm.name for arm in index.arms},
        values={arm.label: arm.values for arm in index.arms},
        questions=tuple(entry.name for entry in spec.compare),
        stops_at_target=spec.stop == "at_target",
        figures=spec.report.figures,
        tuning=index.tuning,
        safety_seconds=spec.safety.seconds,
        twins=index.twins,
    )


def _read_plan(
    folder: Path, plan: PlanFile, sums: Mapping[str, str]
) -> tuple[str, _Spec, PlanIndex]:
    """The text of the spec, its content, and the arms and comparisons."""
    path = folder / "spec.yaml"
    try:
        text = read_whole(path, sums).decode("utf-8")
        text = "\n".join(text.replace("\r\n", "\n").split("\r"))
        content = YAML(typ="safe", pure=True).load(text)
        spec = _Spec.model_validate(content)
        path = plan.path
        if (read := plan.whole(sums)) is not None:
            return text, spec, PlanIndex.model_validate({"records": 0, **read})
        path = folder / "spec.yaml"
        return text, spec, _index_of(content)
    except (YAMLError, *UNREADABLE) as error:
        fault = f"cannot be read ({in_brief(error)}); `bdhf run` rewrites it"
        raise InputError([f"{path}: {fault}"]) from None


def _index_of(spec: Mapping[str, Any]) -> PlanIndex:
    """The arms and comparisons of a spec from an older version, without a plan.json."""
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
    """The environment of each finished run; no row without a whole env.json."""
    rows: list[dict[str, Any]] = []
    for run_id in run_ids:
        try:
            content = read_environment(folder / "runs" / run_id)
        except (InputError, *UNREADABLE):
            continue
        rows.append({"run_id": run_id} | content | {"run_id": run_id})
    return pd.DataFrame(rows)

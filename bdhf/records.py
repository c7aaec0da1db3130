"""The files of an ablation: what `experiments` writes, and `stats` and `report` read.

    results/<ablation>/
      spec.yaml  plan.json  plan.parquet
      runs/<run id>/  spec.yaml  status.json  env.json  curve.parquet  [traceback.txt]
      runs.parquet  curves.parquet  comparisons.parquet  report.html  figures/*.svg

Run folders are the truth; `collect` makes the tables of them, `load` is the one reader. Nothing
here imports torch, and nothing here computes a statistic.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pyarrow import parquet
from pydantic import BaseModel, ConfigDict, Field, model_validator
from ruamel.yaml import YAML


class InputError(Exception):
    """What was given cannot be used: one line per fault, each with what to do next."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


class Status(StrEnum):
    """How a run ended, always with a reason."""

    DONE = "done"
    DIVERGED = "diverged"
    OOM = "oom"
    ERROR = "error"
    TIMEOUT = "timeout"
    SKIPPED = "skipped"

    @property
    def is_missing(self) -> bool:
        """Whether it leaves no outcome behind: missing data. A diverged run is a miss instead."""
        return self in (Status.OOM, Status.ERROR, Status.TIMEOUT, Status.SKIPPED)


#: The statuses of missing data.
MISSING = tuple(status for status in Status if status.is_missing)

#: Axes on which the cost of a run is counted: name -> (column of a curve, unit in words).
AXES: Mapping[str, tuple[str, str]] = {
    "updates": ("update", "updates"),
    "epochs": ("epoch", "epochs"),
    "products": ("products", "curvature products"),
    "gradient_equivalents": ("gradient_equivalents", "gradient equivalents"),
    "seconds": ("seconds", "seconds of training"),
}

#: One row of curve.parquet per evaluation; a problem's own metrics stand behind these.
CURVE_COLUMNS = (
    "update", "epoch", "samples", "products", "gradient_equivalents", "seconds",
    "train_loss", "val_loss", "test_loss",
    "grad_norm", "step_norm", "damping", "step_size", "cg_iterations", "reduction_ratio",
    "negative_curvature", "off_block_energy",
)  # fmt: skip

#: Columns of a curve that tell of one update, not of the run up to there.
DIAGNOSTICS = CURVE_COLUMNS[CURVE_COLUMNS.index("grad_norm") :]


class Strict(BaseModel):
    """A record that takes no unknown key and cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Target(Strict):
    """A metric at or below a value for `sustain` evaluations in a row; the first one counts."""

    metric: str = Field(description="A metric of the problem on a part: `val_loss`, `train_loss`.")
    below: float = Field(description="The value to reach: at or below counts.")
    sustain: int = Field(default=1, ge=1, description="Evaluations in a row that it must hold.")

    @property
    def label(self) -> str:
        """The target in words: `val_loss ≤ 0.02`."""
        held = f" for {self.sustain} evaluations" if self.sustain > 1 else ""
        return f"{self.metric} ≤ {self.below:g}{held}"


Estimand = Literal[
    "updates_to_target",
    "epochs_to_target",
    "products_to_target",
    "gradient_equivalents_to_target",
    "seconds_to_target",
]


class Comparison(Strict):
    """One question of the ablation: is `candidate` better than `baseline`?"""

    name: str = Field(min_length=1, description="What the report calls it; no two alike.")
    candidate: str = Field(description="The arm that may be better.")
    baseline: str = Field(description="The arm that it is held against.")
    estimand: Estimand = Field(
        default="updates_to_target", description="The cost that is compared; less is better."
    )

    @property
    def axis(self) -> str:
        """The axis of the estimand, a key of `AXES`."""
        return self.estimand.removesuffix("_to_target")


class Budget(Strict):
    """Where a run that has not reached its target is censored: one axis, one limit."""

    updates: int | None = Field(default=None, gt=0, description="Updates of the parameters.")
    epochs: float | None = Field(default=None, gt=0, description="Passes over the training data.")
    products: float | None = Field(default=None, gt=0, description="Full curvature products.")
    gradient_equivalents: float | None = Field(
        default=None, gt=0, description="FLOPs ÷ those of one gradient on the gradient batch."
    )
    seconds: float | None = Field(
        default=None, gt=0, description="Seconds of training, evaluation excluded."
    )

    @model_validator(mode="after")
    def _one_axis(self) -> Budget:
        if sum(value is not None for value in self.model_dump().values()) != 1:
            raise ValueError(f"name exactly one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def axis(self) -> str:
        """The axis that the budget names, a key of `AXES`."""
        return next(name for name, value in self.model_dump().items() if value is not None)

    @property
    def limit(self) -> float:
        """The limit on that axis."""
        return float(getattr(self, self.axis))


class PlannedArm(Strict):
    """An arm as the tables have it: one of the spec, in one combination of what its grid varies."""

    label: str
    name: str  # in the spec
    values: dict[str, str] = Field(default_factory=dict)  # axis of the grid -> value, in words
    budget: Budget
    evaluate_every: int


class PlanIndex(Strict):
    """The content of plan.json: the arms of the tables, and the comparisons between them."""

    arms: tuple[PlannedArm, ...]
    comparisons: tuple[Comparison, ...]


PLAN_INDEX = "plan.json"


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


def planned(folder: str | Path) -> pd.DataFrame:
    """Give `arm, seed, run_id, status, reason` of every planned cell, as the disk has it now.

    A cell that the plan leaves out, and that has not been run before, is `skipped`. Raises
    InputError when the folder has no plan.
    """
    path = Path(folder) / "plan.parquet"
    if not path.exists():
        raise InputError([f"{folder}: no plan.parquet: `bdhf run SPEC --out {folder}` makes it"])
    plan = _read(path)
    skips = plan.pop("skip") if "skip" in plan else [""] * len(plan)  # older plans skip nothing
    found = [
        run_status(folder, run_id) or _not_run(skip)
        for run_id, skip in zip(plan["run_id"], skips, strict=True)
    ]
    plan["status"] = [status.get("status") for status in found]
    plan["reason"] = [status.get("reason", "not run yet") for status in found]
    return plan


def _not_run(skip: str) -> dict[str, Any]:
    return {"status": str(Status.SKIPPED), "reason": skip} if skip else {}


def run_status(folder: str | Path, run_id: str) -> dict[str, Any] | None:
    """Give the content of a run's status.json, or None where there is no whole run."""
    run = Path(folder) / "runs" / run_id
    try:
        status: dict[str, Any] = json.loads((run / "status.json").read_text(encoding="utf-8"))
        Status(status["status"])
        parquet.read_metadata(run / "curve.parquet")
    except (OSError, ValueError, TypeError, KeyError):  # torn, or none of ours
        return None
    return status


def collect(folder: str | Path) -> None:
    """Write runs.parquet and curves.parquet from the plan and whatever has finished of it.

    Raises InputError when the folder has no plan.
    """
    folder, runs, curves = Path(folder), [], []
    for cell in planned(folder).to_dict("records"):
        if run_status(folder, cell["run_id"]) is None:  # not run yet, or never
            runs.append(cell)
            continue
        curve = pd.read_parquet(folder / "runs" / cell["run_id"] / "curve.parquet")
        last = curve.drop(columns=list(DIAGNOSTICS), errors="ignore").tail(1)
        runs.append(cell | {name: value.iloc[0] for name, value in last.items() if len(value)})
        curves.append(curve.assign(arm=cell["arm"], seed=cell["seed"], run_id=cell["run_id"]))
    totals = [name for name in CURVE_COLUMNS if name not in DIAGNOSTICS]
    write_table(folder / "runs.parquet", _order(pd.DataFrame(runs), ["status", "reason", *totals]))
    filled = [curve for curve in curves if len(curve)]
    table = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
    write_table(folder / "curves.parquet", _order(table, list(CURVE_COLUMNS)))


def _order(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """These columns first, made where they are missing."""
    first = ["arm", "seed", "run_id", *columns]
    ordered = table.reindex(columns=[*first, *(name for name in table if name not in first)])
    return ordered.astype({"update": "Int64", "samples": "Int64"})  # also where a run has none


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
    runs, index = _read(folder / "runs.parquet"), _index(folder, spec)
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
        curves=_read(folder / "curves.parquet"),
        environments=_environments(folder, runs["run_id"].drop_duplicates()),
        budgets={arm.label: arm.budget for arm in index.arms},
        intervals={arm.label: arm.evaluate_every for arm in index.arms},
    )


def _index(folder: Path, spec: Mapping[str, Any]) -> PlanIndex:
    """The arms and comparisons of plan.json, or of the spec where an older version left none."""
    path = folder / PLAN_INDEX
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


def _read(path: Path) -> pd.DataFrame:
    """Read a table. Raises InputError for a torn one."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            [f"{path}: not a whole table ({first}); `bdhf run` writes it anew"]
        ) from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that exists whole or not at all, whatever kills the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet, atomically and without its index."""
    write_atomically(path, table.to_parquet(index=False))

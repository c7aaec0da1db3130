"""AblationSpec -> the cells of a plan: every arm with every seed, each with the id of its run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from bdhf.experiments.build import uses_curvature
from bdhf.experiments.parts import Resolved
from bdhf.experiments.schema import Spec
from bdhf.optim import ALGORITHM_VERSION
from bdhf.records import Budget, Strict, Target


class RunSpec(Strict):
    """Everything that changes the result of one run, and nothing else."""

    algorithm: int = ALGORITHM_VERSION
    problem: Resolved
    optimizer: Resolved
    gradient_batch: int
    curvature_batch: int | None  # None: the gradient batch itself, or an arm without curvature
    seed: int
    dtype: Literal["float32", "float64"]
    threads: int
    budget: Budget
    stop_at: tuple[Target, ...]  # ends the run once all are hit; empty: at the budget
    evaluate_every: int  # updates

    @cached_property
    def run_id(self) -> str:
        """A hash of the content: 1 and 1.0, and any order of keys, are the same."""
        canonical = json.dumps(_canonical(self.model_dump(mode="json")), sort_keys=True)
        return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Cell:
    """One place in the table of results. Two cells with the same content share one run."""

    arm: str
    seed: int
    run: RunSpec


def expand(spec: Spec) -> tuple[Cell, ...]:
    """Every arm with every seed; seed by seed, so that pairs are complete as early as can be."""
    return tuple(
        Cell(name, seed, _run(spec, arm, seed))
        for seed in range(spec.seeds.base, spec.seeds.base + spec.seeds.count)
        for name, arm in spec.arms.items()
    )


def to_table(cells: tuple[Cell, ...]) -> pd.DataFrame:
    """The rows of plan.parquet: `arm, seed, run_id`."""
    rows = [(cell.arm, cell.seed, cell.run.run_id) for cell in cells]
    return pd.DataFrame(rows, columns=["arm", "seed", "run_id"])


def _run(spec: Spec, arm: Resolved, seed: int) -> RunSpec:
    return RunSpec(
        problem=spec.problem,
        optimizer=arm,
        gradient_batch=spec.batch.gradient,
        curvature_batch=spec.batch.curvature_samples if uses_curvature(arm) else None,
        seed=seed,
        dtype=spec.dtype,
        threads=spec.threads,
        budget=spec.budget,
        stop_at=spec.targets if spec.stop == "at_target" else (),
        evaluate_every=spec.evaluate.every_updates,
    )


def _canonical(value: Any) -> Any:
    """Whole floats as integers, and nothing that is null: a key added later changes no id."""
    if isinstance(value, dict):
        return {key: _canonical(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_canonical(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value

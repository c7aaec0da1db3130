"""One run: everything that changes its result, and its id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Literal

from bdhf.experiments.parts.resolve import Resolved
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
    stop_at: tuple[Target, ...]  # the run ends when all are hit; empty: at the budget
    evaluate_every: int  # updates
    off_block_energy: int | None = None  # probes at each evaluation; None: off

    @property  # not cached: a copy of a model copies cached values
    def run_id(self) -> str:
        """A hash of the content; 1 and 1.0, and any order of keys, give the same."""
        return ids_of(self, [self.seed])[0]


def ids_of(run: RunSpec, seeds: Iterable[int]) -> list[str]:
    """The ids of a run with other seeds."""
    content = canonical(run.model_dump(mode="json"))
    texts = (json.dumps(content | {"seed": seed}, sort_keys=True) for seed in seeds)
    return [hashlib.blake2b(text.encode(), digest_size=8).hexdigest() for text in texts]


def canonical(value: Any) -> Any:
    """Whole floats as integers, without nulls, so that a new optional key changes no id."""
    if isinstance(value, dict):
        return {key: canonical(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [canonical(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value

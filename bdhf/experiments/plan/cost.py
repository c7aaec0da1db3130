"""The cost of one update of an arm, before any run, in gradients of its gradient batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import nn

from bdhf.experiments.parts.meta_models import blocks_of
from bdhf.experiments.parts.resolve import Resolved
from bdhf.experiments.parts.tables import PRODUCTS, part_of, problem_of, product_settings
from bdhf.optim.estimate import Shared, count_products, scaled, site_refusal
from bdhf.optim.forward.objective import Objective
from bdhf.optim.products.cost import Sweeps
from bdhf.optim.solvers import NeedsSites, Solver
from bdhf.optim.update.momentum import Momentum
from bdhf.optim.vectors.blocks import Blocks
from bdhf.problems import Problem
from bdhf.problems.data import Part

_EXAMPLE = 4  # samples on which costs are counted; every cost is linear in them

_MOST = 8  # problems whose forward passes are kept at a time

#: The keys of an arm that decide its cost.
_COUNTED = ("curvature", "partition", "solver", "momentum", *PRODUCTS)


@dataclass(frozen=True)
class _Bench:
    """A problem's model and a few samples, with cached forward passes and blocks."""

    problem: Problem
    model: nn.Module
    example: Part
    shared: Shared = field(default_factory=Shared)
    blocks: dict[str, Blocks] = field(default_factory=dict)  # of a partition, by its JSON


#: The benches of the problems that are being estimated, by their JSON; None: outside `models_kept`.
_BENCHES: ContextVar[dict[str, _Bench] | None] = ContextVar("benches", default=None)


@contextmanager
def models_kept() -> Iterator[None]:
    """Within this context estimates share models and forward passes; they are freed at the end.

    Outside of it every new estimate builds its own. The numbers are the same, and are cached.
    """
    token = _BENCHES.set({})
    try:
        yield
    finally:
        _BENCHES.reset(token)


def arm_cost(
    problem: Resolved, arm: Resolved, gradient_batch: int, curvature_batch: int | None
) -> float:
    """Gradient equivalents of one update; an optimizer of torch counts as one gradient.

    `curvature_batch` None: the gradient batch itself.
    """
    if arm["type"] != "block_hf":
        return 1.0
    return scaled(*_counted(json.dumps(problem), _alike(arm)), gradient_batch, curvature_batch)


def arm_factor_rows(problem: Resolved, arm: Resolved) -> float:
    """Rows per sample of the curvature batch that an arm with `sample_space` solves for."""
    sweeps, _, _ = _counted(json.dumps(problem), _alike(arm))
    return sweeps.factor_rows


def arm_refusal(problem: Resolved, arm: Resolved) -> str:
    """Why the preconditioner of an arm does not fit the model of a problem; "" if it does."""
    if not isinstance(getattr(part_of("solver", arm), "preconditioner", None), NeedsSites):
        return ""
    return _refused(json.dumps(problem), _alike(arm))


def _alike(arm: Resolved) -> str:
    """The parts of an arm that decide its cost, in JSON: arms of equal cost share it."""
    parts = {key: arm.get(key) for key in _COUNTED}
    if arm["curvature"]["type"] == "empirical_fisher":  # of rank 1, as one draw is
        parts["curvature"] = {"type": "fisher", "samples": 1}
    adds = arm["damping"]["type"] == "structural"  # λ itself adds no product
    parts["damping"] = arm["damping"] if adds else {"type": "constant"}
    return json.dumps(parts)


@lru_cache(maxsize=512)
def _counted(problem: str, parts: str) -> tuple[Sweeps, Solver, Momentum | None]:
    """The cost of products, solver and momentum; arguments in JSON: each is counted once."""
    arm = json.loads(parts)
    with torch.random.fork_rng(devices=[]):
        bench, solver, momentum = _bench(problem), part_of("solver", arm), part_of("momentum", arm)
        sweeps = count_products(
            Objective.of(bench.model, bench.problem.loss), bench.example, bench.shared,
            curvature=part_of("curvature", arm), blocks=_blocks(bench, arm), solver=solver,
            momentum=momentum, settings=product_settings(arm),
            damping=part_of("damping", arm),
        )  # fmt: skip
    return sweeps, solver, momentum


@lru_cache(maxsize=512)
def _refused(problem: str, parts: str) -> str:
    """`arm_refusal` of arguments in JSON, so that each is asked once."""
    arm = json.loads(parts)
    with torch.random.fork_rng(devices=[]):
        bench = _bench(problem)
        return site_refusal(
            Objective.of(bench.model, bench.problem.loss), bench.example,
            curvature=part_of("curvature", arm), blocks=_blocks(bench, arm),
            solver=part_of("solver", arm), settings=product_settings(arm),
        )  # fmt: skip


def _blocks(bench: _Bench, arm: Resolved) -> Blocks:
    """The blocks of an arm's partition, kept with the bench."""
    key = json.dumps(arm["partition"])
    if key not in bench.blocks:
        bench.blocks[key] = blocks_of(part_of("partition", arm), bench.problem)
    return bench.blocks[key]


def _bench(problem: str) -> _Bench:
    """The bench of a problem: the cached one, or a new one."""
    benches = _BENCHES.get()
    if benches is not None and problem in benches:
        return benches[problem]
    built = problem_of(json.loads(problem))
    bench = _Bench(built, built.build(), built.example(_EXAMPLE))
    if benches is not None:
        if len(benches) == _MOST:
            benches.pop(next(iter(benches)))
        benches[problem] = bench
    return bench

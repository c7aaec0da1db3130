"""The measured operations of a library, and of bdhf: linearise, multiply, update.

A product is v -> (G_bb v_b for every block b), (P,) -> (P,) in the order of the parameters. An
update is the gradient, 30 iterations of CG on every block, and a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import bdhf
from asv_bench.benchmarks.linearising import linearising
from asv_bench.workloads import Workload
from bdhf.optim.products import Settings

Product = Callable[[Tensor], Tensor]

#: Iterations of CG in an update, without an early stop.
ITERATIONS = 30

#: So small that the workload stays the same from one update to the next.
LR = 1e-8

DAMPING = 1e-3


class NotApplicable(Exception):  # noqa: N818 - a reason for the table, not a failure
    """Why a library cannot do something."""


@dataclass(frozen=True)
class Adapter:
    """One library on one workload under one partition."""

    method: str  # in the words of the library
    blocks: int
    first: Callable[[], object]  # linearise, make the choices of a run, and compile
    set_up: Callable[[], Product]  # linearise again
    update: Callable[[], object]  # moves the parameters of its own model
    probe: Callable[[], object]  # an update with the same memory, possibly shorter


def ours(workload: Workload, partition: str, options: Mapping[str, Any]) -> Adapter:
    """bdhf; `options` are common arguments of `block_curvature` and the optimizer."""
    own, moved = workload.partitions[partition], workload.copy()

    def linearised() -> bdhf.BlockCurvature:
        return bdhf.block_curvature(
            workload.model, workload.loss, workload.batch, partition=own, **options
        )

    optimizer = bdhf.BlockHessianFree(
        moved.model, moved.loss, partition=own, lr=LR, check=False,
        solver=bdhf.CG(max_iters=ITERATIONS, tol=0.0, warm_start=0.0),
        damping=bdhf.Constant(DAMPING), **options,
    )  # fmt: skip
    G = linearised()

    def first() -> object:
        product = linearised().matvec
        if options.get("compile"):
            v = torch.zeros(G.shape[0], device=workload.device)
            return [product(v) for _ in range(2)]  # the first counts its operators
        return product

    def update() -> object:
        return optimizer.step(moved.batch)

    update()  # so that the timing has no work that a run does once
    return Adapter(
        method=G.method,
        blocks=len(G.blocks),
        first=first,
        set_up=_again(workload, partition, options),
        update=update,
        probe=update,
    )


def _again(workload: Workload, partition: str, options: Mapping[str, Any]) -> Callable[[], Product]:
    """Linearise as in the second update of an optimizer, with its choices and programs."""
    settings = {"dtype" if name == "product_dtype" else name: x for name, x in options.items()}
    curvature = settings.pop("curvature", bdhf.GGN())
    blocks, linearise = linearising(
        workload.model, workload.loss, workload.batch, curvature, workload.partitions[partition],
        Settings(**settings), lambda blocks: ITERATIONS + 1,
    )  # fmt: skip

    def set_up() -> Product:
        product = linearise()
        return lambda v: blocks.scatter(product(blocks.gather(v)))

    return set_up

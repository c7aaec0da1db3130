"""What one update of an arm costs, before anything is run: in gradients of its gradient batch."""

from __future__ import annotations

import json
import warnings
from functools import cache

import torch

from bdhf.experiments.build import optimizer_of, problem_of
from bdhf.experiments.parts import Resolved
from bdhf.optim import BlockHessianFree, CostWarning
from bdhf.optim import estimate as of_update

EXAMPLE = 4  # samples on which costs are counted; every cost is linear in them


def estimate(
    problem: Resolved, arm: Resolved, gradient_batch: int, curvature_batch: int | None
) -> float:
    """Gradient equivalents of one update; an optimizer of torch is taken to need one gradient.

    `curvature_batch` None: the gradient batch itself.
    """
    if arm["type"] != "block_hf":
        return 1.0
    return _estimate(json.dumps(problem), json.dumps(arm), gradient_batch, curvature_batch)


@cache
def _estimate(problem: str, arm: str, gradient_batch: int, curvature_batch: int | None) -> float:
    """`estimate` of parts as JSON, so that a grid counts each once."""
    built = problem_of(json.loads(problem))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)
        optimizer = optimizer_of(json.loads(arm), built.build(), built)
        assert isinstance(optimizer, BlockHessianFree)  # the type of the arm says so
        return of_update(
            optimizer,
            built.example(EXAMPLE),
            gradient_batch=gradient_batch,
            curvature_batch=curvature_batch,
        )

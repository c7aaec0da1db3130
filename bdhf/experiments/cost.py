"""What one update of an arm costs, before anything is run: in gradients of its gradient batch."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from bdhf.experiments.build import optimizer_of, problem_of
from bdhf.experiments.parts import Resolved
from bdhf.optim import BlockHessianFree, CostWarning
from bdhf.optim import estimate as of_update
from bdhf.optim import factor_rows as rows_of_factor
from bdhf.problems.data import Part

EXAMPLE = 4  # samples on which costs are counted; every cost is linear in them


def estimate(
    problem: Resolved, arm: Resolved, gradient_batch: int, curvature_batch: int | None
) -> float:
    """Gradient equivalents of one update; an optimizer of torch is taken to need one gradient.

    `curvature_batch` None: the gradient batch itself.
    """
    if arm["type"] != "block_hf":
        return 1.0
    return _estimate(json.dumps(problem), json.dumps(_alike(arm)), gradient_batch, curvature_batch)


def _alike(arm: Resolved) -> Resolved:
    """An arm of the same cost, the same for all arms that differ in nothing that costs."""
    free: Resolved = {"lr": 1.0, "damping": {"type": "constant", "value": 1.0}}
    if arm["curvature"]["type"] == "empirical_fisher":  # of rank 1, as one draw is
        free["curvature"] = {"type": "fisher", "samples": 1}
    return {**arm, **free}


@cache
def _estimate(problem: str, arm: str, gradient_batch: int, curvature_batch: int | None) -> float:
    """`estimate` of parts as JSON, so that a grid counts each once."""
    with _counting(problem, arm) as (optimizer, example):
        return of_update(
            optimizer, example, gradient_batch=gradient_batch, curvature_batch=curvature_batch
        )


def factor_rows(problem: Resolved, arm: Resolved) -> float:
    """Rows a sample of the curvature batch that an arm with `sample_space` solves for."""
    return _factor_rows(json.dumps(problem), json.dumps(arm))


@cache
def _factor_rows(problem: str, arm: str) -> float:
    """`factor_rows` of parts as JSON, so that a grid counts each once."""
    with _counting(problem, arm) as (optimizer, example):
        return rows_of_factor(optimizer, example)


@contextmanager
def _counting(problem: str, arm: str) -> Iterator[tuple[BlockHessianFree, Part]]:
    """An optimizer on the problem, and a few samples; the caller's random state stays."""
    built = problem_of(json.loads(problem))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)
        optimizer = optimizer_of(json.loads(arm), built.build(), built)
        assert isinstance(optimizer, BlockHessianFree)  # the type of the arm says so
        yield optimizer, built.example(EXAMPLE)

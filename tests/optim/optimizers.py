"""Optimizers on the cases, the step that each must take, and a small regression to train."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import bdhf
from bdhf.optim.vectors.layout import layout_of
from tests.cases import Case
from tests.optim.partitions import PARTITIONS
from tests.oracles import blocked, dense_ggn, dense_gradient

#: Conjugate gradients down to rounding.
EXACT = bdhf.CG(max_iters=2000, tol=0, residual_tol=1e-13)


def optimizer_of(case: Case, partition: str = "per_layer", **parts: Any) -> bdhf.BlockHessianFree:
    """An optimizer on a case, under a partition of the table."""
    made = PARTITIONS[partition](layout_of(case.model))
    return bdhf.BlockHessianFree(case.model, case.loss_fn, partition=made, **parts)


def dense_step(case: Case, optimizer: bdhf.BlockHessianFree, damping: float) -> Tensor:
    """-(G + λI)⁻¹ g with the matrix of the optimizer's systems, (P,)."""
    matrix = blocked(dense_ggn(case), optimizer.blocks)
    damped = matrix + damping * torch.eye(len(matrix), dtype=matrix.dtype)
    return torch.linalg.solve(damped, -dense_gradient(case))


def regression(n: int = 200, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A small regression problem with a non-linear model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        x = torch.randn(n, 6)
    return model, (x, torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin()], dim=1))

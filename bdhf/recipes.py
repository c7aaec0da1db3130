"""Named optimizers as choices of parts: what a paper did, in this package's words."""

from __future__ import annotations

from torch import nn

from bdhf.optim import (
    CG,
    GGN,
    L2,
    Backtracking,
    BlockHessianFree,
    Constant,
    Full,
    LevenbergMarquardt,
    Martens,
    Partition,
)
from bdhf.optim.losses.weights import LossFn


def martens2010(model: nn.Module, loss_fn: LossFn, l2: float = 2e-5) -> BlockHessianFree:
    """Hessian-free optimization of Martens (2010): full GGN, adaptive damping, backtracking.

    Give the curvature batch to each step, and draw the parameters by `bdhf.nn.Sparse(15)`.

    >>> optimizer = martens2010(nn.Linear(4, 2), nn.functional.mse_loss)
    >>> optimizer.damping.initial, len(optimizer.blocks.rows)
    (1.0, 1)
    """
    return BlockHessianFree(
        model, loss_fn, curvature=GGN(), partition=Full(),
        solver=CG(max_iters=250, tol=5e-4, warm_start=0.95, preconditioner=Martens()),
        damping=LevenbergMarquardt(initial=1.0), acceptance=Backtracking(),
        regularization=L2(l2), lr=1.0,
    )  # fmt: skip


def zhang2017(
    model: nn.Module,
    loss_fn: LossFn,
    partition: Partition,
    *,
    lr: float,
    damping: float,
    max_iters: int = 30,
) -> BlockHessianFree:
    """Block-diagonal Hessian-free of Zhang et al. (2017): fixed damping and rate, warm start.

    The paper's values of `lr`, `damping` and `max_iters` are not known: tune them. `partition` is
    the paper's `Groups`, contiguous in depth; `Full()` makes its full-HF baseline.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4))
    >>> from bdhf.optim import Groups
    >>> blocks = Groups([["0.*"], ["2.*"]])
    >>> optimizer = zhang2017(model, nn.functional.mse_loss, blocks, lr=0.5, damping=1e-3)
    >>> [block.size for block in optimizer.blocks.rows]
    [15, 16]
    """
    return BlockHessianFree(
        model, loss_fn, curvature=GGN(), partition=partition,
        solver=CG(max_iters=max_iters, tol=5e-4, warm_start=0.95),
        damping=Constant(damping), lr=lr,
    )  # fmt: skip

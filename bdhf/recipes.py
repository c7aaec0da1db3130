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
    Preconditioner,
)
from bdhf.optim.losses.weights import LossFn

#: Martens' preconditioner, with its squares by matrix products.
_MARTENS = Martens(squares="sites")


def martens2010(
    model: nn.Module,
    loss_fn: LossFn,
    l2: float = 2e-5,
    *,
    damping: float = 1.0,
    max_iters: int = 250,
    preconditioner: Preconditioner = _MARTENS,
) -> BlockHessianFree:
    """Hessian-free optimization of Martens (2010): full GGN, adaptive damping, backtracking.

    Draw the parameters by `bdhf.nn.Sparse(15)`, and pass a part of the batch as the curvature batch
    of each step: `step(batch, curvature_batch)` (Martens & Sutskever 2012). Beside the size of that
    part, three things decide the time to a loss: `damping`, the first λ, which falls by at most a
    third in an update; `max_iters` of CG; and the `preconditioner`, for which
    `KFAC()` with 5 to 10 iterations takes fewer products than the paper's diagonal.

    Differs from the paper: the preconditioner's D is a mean over the samples, as the loss is; the
    next CG starts at a fixed ζ = 0.95 times the last solution; λ is in the units of a mean loss.

    >>> optimizer = martens2010(nn.Linear(4, 2), nn.functional.mse_loss)
    >>> optimizer.damping.initial, len(optimizer.blocks.rows)
    (1.0, 1)
    """
    return BlockHessianFree(
        model, loss_fn, curvature=GGN(), partition=Full(),
        solver=CG(max_iters, tol=5e-4, warm_start=0.95, preconditioner=preconditioner),
        damping=LevenbergMarquardt(initial=damping), acceptance=Backtracking(),
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

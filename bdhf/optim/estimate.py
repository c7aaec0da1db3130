"""What one update of an optimizer will cost, in gradients, from a small batch."""

from __future__ import annotations

import torch

from bdhf.optim.arithmetic import full_precision
from bdhf.optim.cost import Sweeps, sweeps
from bdhf.optim.flops import Flops
from bdhf.optim.objective import Batch, micro_batches
from bdhf.optim.optimizer import BlockHessianFree
from bdhf.optim.products import linearise


def factor_rows(optimizer: BlockHessianFree, batch: Batch) -> float:
    """Rows of the factor a sample: what `SampleSpace` has to solve for. NaN where there is none.

    >>> from torch import nn
    >>> optimizer = BlockHessianFree(nn.Linear(4, 2), nn.functional.mse_loss)
    >>> factor_rows(optimizer, (torch.zeros(8, 4), torch.zeros(8, 2)))
    2.0
    """
    return _sweeps(optimizer, batch).factor_rows


def estimate(
    optimizer: BlockHessianFree,
    batch: Batch,
    *,
    gradient_batch: int,
    curvature_batch: int | None = None,
) -> float:
    """Gradient equivalents of one update at most: FLOPs on a small batch, scaled to the sizes.

    `batch` is any few samples of the right shapes; `gradient_batch` and `curvature_batch` (None:
    the same batch) are the numbers of samples of an update. The solver is taken to use all of its
    iterations; a line search is not counted.

    >>> from torch import nn
    >>> optimizer = BlockHessianFree(nn.Linear(4, 2), nn.functional.mse_loss)
    >>> batch = torch.zeros(8, 4), torch.zeros(8, 2)
    >>> estimate(optimizer, batch, gradient_batch=1000, curvature_batch=100) < 10
    True
    """
    counted = _sweeps(optimizer, batch)
    solve = counted.setup + optimizer.solver.cost(counted, curvature_batch or gradient_batch)
    if curvature_batch is None:
        return 1 + solve + 1 / 3  # a forward pass is a third of a gradient
    return 1 + curvature_batch / gradient_batch * (1 + solve + 1 / 3)


def _sweeps(optimizer: BlockHessianFree, batch: Batch) -> Sweeps:
    objective, flops = optimizer.objective, Flops()
    objective.check()
    with torch.enable_grad(), full_precision(objective.device):
        product = linearise(
            objective, micro_batches(batch),
            curvature=optimizer.curvature, blocks=optimizer.blocks, flops=flops,
            settings=optimizer.settings, products=optimizer.solver.products(optimizer.blocks),
        )  # fmt: skip
        return sweeps(product, flops, len(product.parts[0][1].outputs))

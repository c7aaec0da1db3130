"""The quadratic model of the loss around θ, including the penalty of the parameters.

Loss and gradient are those of one batch, the matrix G of the same batch or of another:

    L(θ + d) ≈ L(θ) + gᵀd + ½ dᵀ(G + μI) d
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.forward.batches import Batches
from bdhf.optim.forward.objective import Objective
from bdhf.optim.products import BlockProduct
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.update.regularization import L2


@dataclass(frozen=True)
class Expansion:
    """Loss and gradient at θ; without the matrix, whose graph is freed before the step."""

    batches: Batches  # the gradient batch
    curvature_batches: Batches  # the curvature batch
    loss: float  # of the gradient batch
    curvature_loss: float  # of the curvature batch
    gradient: Tensor  # of the gradient batch, (P,) in block order
    norm: float  # ‖g‖₂
    gradient_cost: int  # FLOPs of one gradient

    @property
    def is_finite(self) -> bool:
        """Whether there is a model to minimise."""
        return all(map(math.isfinite, (self.loss, self.norm, self.curvature_loss)))


@torch.enable_grad()
def expansion_at(
    objective: Objective,
    product: BlockProduct,
    batches: Batches,
    curvature_batches: Batches,
    penalty: L2,
    flops: Flops,
) -> Expansion:
    """Expand on `batches`: for free where they are the `curvature_batches` of the product."""
    if curvature_batches is batches:
        keys = [("linearise", objective.signature(batch)) for batch in batches]
        loss, gradient = product.loss, product.gradient
    else:
        keys = [("gradient", objective.signature(batches))]
        with flops.counting(keys[0]):
            loss, flat = objective.loss_and_gradient(batches)
        gradient = product.blocks.gather(flat)
    if penalty.weight:
        gradient = gradient + penalty.weight * product.blocks.gather(objective.theta())
    penalised = penalty.loss(objective)
    return Expansion(
        batches=batches,
        curvature_batches=curvature_batches,
        loss=float(loss) + penalised,
        curvature_loss=float(product.loss) + penalised,
        gradient=gradient,
        norm=float(gradient.norm()),
        gradient_cost=sum(map(flops.cost, keys)),
    )

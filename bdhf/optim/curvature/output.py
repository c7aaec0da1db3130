"""The Hessian of the loss with respect to the model's outputs: w -> ∇²_z L · w."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.objective import LossFn


@dataclass(frozen=True)
class OutputLoss:
    """The loss as a function of the outputs z, expanded to second order at one point."""

    loss: Tensor  # ()
    gradient: Tensor  # ∇_z L, shape of z
    hessian: Callable[[Tensor], Tensor]  # w -> ∇²_z L · w, both of the shape of z


def expand(loss_fn: LossFn, outputs: Tensor, targets: Any) -> OutputLoss:
    """Expand the loss at the outputs by automatic differentiation; any convex loss.

    Raises ValueError when the loss is not a scalar.
    """
    z = outputs.detach().requires_grad_()
    loss = loss_fn(z, targets)
    if loss.dim() != 0:
        raise ValueError(
            f"the loss has shape {tuple(loss.shape)}; loss_fn(outputs, targets) must return a "
            "scalar: use reduction='mean' or 'sum'"
        )
    (gradient,) = torch.autograd.grad(loss, z, create_graph=True)

    def hessian(w: Tensor) -> Tensor:
        if not gradient.requires_grad:  # a loss that is linear in z
            return torch.zeros_like(w)
        (product,) = torch.autograd.grad(
            gradient, z, w, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return product

    return OutputLoss(loss.detach(), gradient.detach(), hessian)

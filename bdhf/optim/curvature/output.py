"""The loss as a function of the model's outputs z, expanded to second order at one point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.errors import ModelError
from bdhf.optim.losses import recognise
from bdhf.optim.losses.hessians import Differentiated, OutputHessian, Scaled
from bdhf.optim.losses.weights import LossFn
from bdhf.optim.refusals import refuse_no_scalar


@dataclass(frozen=True)
class OutputLoss:
    """Loss and gradient at the outputs, and the H that a curvature puts between Jᵀ and J."""

    loss: Tensor  # ()
    gradient: Tensor  # ∇_z L, shape of z
    hessian: OutputHessian


def expand(loss_fn: LossFn, outputs: Tensor, targets: Any) -> OutputLoss:
    """Expand the loss at the outputs: H in closed form where the loss is known, else by autograd.

    Raises ModelError when the loss is not a scalar.
    """
    likelihood = recognise(loss_fn)
    known = likelihood.hessian(outputs.detach(), targets) if likelihood is not None else None
    z = outputs.detach().requires_grad_()
    loss, gradient = value_and_gradient(loss_fn, z, targets, create_graph=known is None)
    if likelihood is None or known is None:
        return OutputLoss(loss, gradient.detach(), Differentiated(gradient, z))
    scale = 1.0 / likelihood.terms(z.detach(), targets) if likelihood.is_mean else None
    return OutputLoss(loss, gradient, known if scale is None else Scaled(known, scale))


def value_and_gradient(
    loss_fn: LossFn, z: Tensor, targets: Any, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """L, detached, and ∇_z L. Raises ModelError when the loss is not a scalar."""
    loss = loss_fn(z, targets)
    refuse_no_scalar(loss)
    if loss.dim() != 0:
        raise ModelError(
            f"the loss has shape {tuple(loss.shape)}; loss_fn(outputs, targets) must return a "
            "scalar: use reduction='mean' or 'sum'"
        )
    (gradient,) = torch.autograd.grad(loss, z, create_graph=create_graph)
    return loss.detach(), gradient

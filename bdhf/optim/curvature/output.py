"""The loss as a function of the outputs z, expanded to second order at one point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.errors import ModelError
from bdhf.optim.losses import recognise
from bdhf.optim.losses.hessians import Differentiated, OutputHessian, Scaled
from bdhf.optim.losses.own import loss_name, own_parameters, refuse_outside_parameters
from bdhf.optim.losses.targets import check_targets
from bdhf.optim.losses.weights import LossFn
from bdhf.optim.refusals.refusals import refuse_no_scalar


@dataclass(frozen=True)
class OutputLoss:
    """Loss and gradient at the outputs, and the H of a curvature Jᵀ H J."""

    loss: Tensor  # ()
    gradient: Tensor  # ∇_z L, shape of z
    hessian: OutputHessian
    direct: tuple[Tensor, ...] | None = None  # ∇L of the loss's own parameters at fixed outputs


def expand_loss(loss_fn: LossFn, outputs: Tensor, targets: Any) -> OutputLoss:
    """Expand the loss at the outputs: H in closed form for a known loss, else by autograd.

    Raises ModelError as `value_and_gradient` does.
    """
    closed = _closed_form(loss_fn, outputs.detach(), targets)
    z = outputs.detach().requires_grad_()
    loss, gradient, direct = value_and_gradient(loss_fn, z, targets, create_graph=closed is None)
    if closed is None:
        return OutputLoss(
            loss, gradient.detach(), Differentiated(gradient, z, loss_name(loss_fn)), direct
        )
    return OutputLoss(loss, gradient, closed, direct)


def _closed_form(loss_fn: LossFn, z: Tensor, targets: Any) -> OutputHessian | None:
    """∇²_z L of a known loss, without a graph to parameters that the loss holds."""
    likelihood = recognise(loss_fn)
    if likelihood is None:
        return None
    check_targets(loss_fn, z, targets)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not own_parameters(loss_fn)):
        hessian = likelihood.hessian(z, targets)
        if hessian is None or not likelihood.is_mean:
            return hessian
        return Scaled(hessian, 1.0 / likelihood.terms(z, targets))


def value_and_gradient(
    loss_fn: LossFn, z: Tensor, targets: Any, create_graph: bool = False
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """L, detached, ∇_z L, and the gradients of the parameters that the loss itself holds, detached.

    With a leaf as outputs z, these are derivatives at fixed outputs. Raises ModelError as
    `scalar` does.
    """
    loss, own = scalar(loss_fn, z, targets), own_parameters(loss_fn)
    if not own:
        (gradient,) = torch.autograd.grad(loss, z, create_graph=create_graph)
        return loss.detach(), gradient, ()
    gradient, *direct = torch.autograd.grad(
        loss, [z, *own], create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return loss.detach(), gradient, tuple(part.detach() for part in direct)


def scalar(loss_fn: LossFn, z: Tensor, targets: Any) -> Tensor:
    """L at the outputs z, with its graph.

    Raises ModelError for a loss that is not a scalar or has no graph, for targets that it does not
    take, and for a loss that reads parameters which it does not hold: every gradient would omit
    them.
    """
    check_targets(loss_fn, z, targets)
    behind = z.grad_fn  # before an in-place operator replaces it
    loss = loss_fn(z, targets)
    refuse_no_scalar(loss)
    refuse_outside_parameters(loss_fn, loss, (z, behind), targets)
    if loss.dim() != 0:
        raise ModelError(
            f"the loss has shape {tuple(loss.shape)}; loss_fn(outputs, targets) must return a "
            "scalar: use reduction='mean' or 'sum'"
        )
    if not loss.requires_grad:
        raise ModelError(
            f"the loss {loss_name(loss_fn)} has no graph back to the outputs: check it for a "
            "detach(), an item(), numpy or a new torch.tensor(...) of what it computed"
        )
    return loss

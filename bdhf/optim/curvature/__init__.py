"""Curvatures: the matrix of the quadratic model. One file each.

`bdhf.optim.products` computes products with it.
"""

from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from bdhf.optim.curvature.fisher import EmpiricalFisher, Fisher
from bdhf.optim.curvature.ggn import GGN
from bdhf.optim.curvature.hessian import Hessian
from bdhf.optim.curvature.mixed import Mixed
from bdhf.optim.curvature.output import OutputLoss, expand_loss
from bdhf.optim.losses.weights import LossFn


class OutputCurvature(Protocol):
    """A matrix of the form Jᵀ H J, given by the H of the outputs; positive semi-definite."""

    def expand_loss(
        self, loss_fn: LossFn, outputs: Tensor, targets: Any, generator: torch.Generator
    ) -> OutputLoss:
        """The loss at the outputs, with the H between Jᵀ and J.

        `expand_loss` returns both for any loss, and `direct` for one with its own parameters.
        `generator` is for draws; each linearisation has its own stream.
        """


#: The matrix of a quadratic model: a Jᵀ H J, the Hessian of the loss, or a mixture of both.
Curvature = OutputCurvature | Hessian


def hessian_share(curvature: Curvature) -> float:
    """The weight α of ∇²L in a matrix α ∇²L + (1 - α) JᵀHJ; 0 for a Jᵀ H J.

    Above 0 the matrix has second derivatives of the model: it is indefinite, has no factor, and
    includes the second derivatives of the loss's own parameters.
    """
    return float(getattr(curvature, "hessian_share", 0.0))


def is_through_outputs(curvature: Curvature) -> TypeGuard[OutputCurvature]:
    """Whether the matrix is a Jᵀ H J, without any share of ∇²L."""
    return not hessian_share(curvature)


__all__ = [
    "GGN",
    "Curvature",
    "EmpiricalFisher",
    "Fisher",
    "Hessian",
    "Mixed",
    "OutputCurvature",
    "OutputLoss",
    "expand_loss",
    "hessian_share",
    "is_through_outputs",
]

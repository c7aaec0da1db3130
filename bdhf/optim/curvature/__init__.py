"""Curvatures: the matrix of the quadratic model. One file each.

`bdhf.optim.products` computes products with it.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from bdhf.optim.curvature.fisher import EmpiricalFisher, Fisher
from bdhf.optim.curvature.ggn import GGN
from bdhf.optim.curvature.hessian import Hessian
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


#: The matrix of a quadratic model: a Jᵀ H J, or the Hessian of the loss.
Curvature = OutputCurvature | Hessian

__all__ = [
    "GGN",
    "Curvature",
    "EmpiricalFisher",
    "Fisher",
    "Hessian",
    "OutputCurvature",
    "OutputLoss",
    "expand_loss",
]

"""Curvatures: which matrix stands in the quadratic model. One file each.

How a product with it is computed is the business of `bdhf.optim.products`.
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
        """The loss at the outputs, with the H that stands between Jᵀ and J.

        `expand` gives both for any loss, and `direct` for one with parameters of its own.
        `generator` is for draws: each linearisation has a stream of its own.
        """


#: What may stand in the quadratic model: a Jᵀ H J, or the Hessian of the loss.
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

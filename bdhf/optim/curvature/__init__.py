"""Curvatures: which matrix stands in the quadratic model. One file each.

How a product with it is computed is the business of `bdhf.optim.products`.
"""

from typing import Any, Protocol

from torch import Tensor

from bdhf.optim.curvature.ggn import GGN
from bdhf.optim.curvature.output import OutputLoss
from bdhf.optim.objective import LossFn


class Curvature(Protocol):
    """A matrix of the form Jᵀ H J, given by the H of the outputs."""

    def expand_loss(self, loss_fn: LossFn, outputs: Tensor, targets: Any) -> OutputLoss:
        """The loss at the outputs, with the H that stands between Jᵀ and J."""


__all__ = ["GGN", "Curvature", "OutputLoss"]

"""A mixture of the Hessian of the loss and its generalised Gauss-Newton matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.curvature.output import OutputLoss, expand_loss
from bdhf.optim.losses.weights import LossFn


@dataclass(frozen=True)
class Mixed:
    """The mixture α ∇²L + (1 - α) Σ_n J_nᵀ H_n J_n of Hessian and GGN.

    By ∇²L = GGN + Σ_n Σ_c (∂L/∂z_nc) ∇²z_nc it keeps the share α = `alpha` of the second
    derivatives of the model (Schraudolph 2002, section 3): 0 is the GGN, 1 the Hessian. It is
    indefinite above 0, less often than the Hessian. A product costs one with each of the two.
    Raises ValueError for an α outside [0, 1].
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(
                f"Mixed alpha must be from 0 (the GGN) to 1 (the Hessian); got {self.alpha}"
            )

    @property
    def hessian_share(self) -> float:
        """α."""
        return float(self.alpha)

    def expand_loss(
        self, loss_fn: LossFn, outputs: Tensor, targets: Any, generator: torch.Generator
    ) -> OutputLoss:
        """The loss at the outputs, with the H of the GGN."""
        return expand_loss(loss_fn, outputs, targets)

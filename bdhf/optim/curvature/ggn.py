"""The generalised Gauss-Newton matrix: G = Σ_n J_nᵀ H_n J_n."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bdhf.optim.curvature.output import OutputLoss, expand
from bdhf.optim.objective import LossFn


@dataclass(frozen=True)
class GGN:
    """G = Σ_n J_nᵀ H_n J_n with J_n = ∂z_n/∂θ and H_n = ∇²_z of the loss (Schraudolph 2002, §3).

    Positive semi-definite for every loss that is convex in the outputs. The reduction of the loss
    carries over: with a mean loss, G is the mean.
    """

    def expand_loss(self, loss_fn: LossFn, outputs: Tensor, targets: Any) -> OutputLoss:
        """The loss at the outputs, with the H that stands between Jᵀ and J."""
        return expand(loss_fn, outputs, targets)

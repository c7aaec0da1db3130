"""The generalised Gauss-Newton matrix: G = Σ_n J_nᵀ H_n J_n."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.curvature.output import OutputLoss, expand_loss
from bdhf.optim.losses.weights import LossFn


@dataclass(frozen=True)
class GGN:
    """The generalised Gauss-Newton matrix Σ_n J_nᵀ H_n J_n (Schraudolph 2002, section 3).

    J_n = ∂z_n/∂θ are the Jacobians of the outputs and H_n = ∇²_z the Hessians of the loss, in
    closed form for torch's cross-entropy, squared error and binary cross-entropy with logits, by
    automatic differentiation for any other loss. The matrix is positive semi-definite for every
    loss that is convex in the outputs; the reduction of the loss carries over: with a mean loss,
    G is the mean.
    """

    def expand_loss(
        self, loss_fn: LossFn, outputs: Tensor, targets: Any, generator: torch.Generator
    ) -> OutputLoss:
        """The loss at the outputs, with the H between Jᵀ and J."""
        return expand_loss(loss_fn, outputs, targets)

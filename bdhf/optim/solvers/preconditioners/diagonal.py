"""A positive diagonal M, or none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.solvers.system import System


@dataclass(frozen=True)
class NoPreconditioner:
    """M = I: plain conjugate gradients."""

    def __call__(self, system: System) -> Tensor | None:
        """Leave the system unchanged."""
        return None


@dataclass(frozen=True)
class Martens:
    """M = (D + λ)^ξ, D the mean of squared per-sample gradients (Martens 2010, section 4.7).

    ξ is the `exponent`. D is a mean, as the loss is: a sum would outweigh λ. Costs one pass over
    the samples of the curvature batch per update. Raises ValueError for an exponent outside (0, 1].
    """

    exponent: float = 0.75

    def __post_init__(self) -> None:
        if not 0 < self.exponent <= 1:
            raise ValueError(f"exponent of Martens must be in (0, 1]; got {self.exponent}")

    def __call__(self, system: System) -> Tensor | None:
        """diag(M), (P,); 1 where D and λ are both 0."""
        diagonal = system.matrix.squared_gradients()
        damped = system.blocks.add_scaled_(
            diagonal.clone(), system.damping, torch.ones_like(diagonal)
        )
        return torch.where(damped > 0, damped, 1.0) ** self.exponent

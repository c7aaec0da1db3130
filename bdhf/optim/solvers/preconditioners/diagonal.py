"""A positive diagonal M, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bdhf.optim.products.cost import Sweeps
from bdhf.optim.solvers.system import System


@dataclass(frozen=True)
class NoPreconditioner:
    """M = I: plain conjugate gradients."""

    def __call__(self, system: System) -> Tensor | None:
        """Leave the system unchanged."""
        return None

    def cost(self, sweeps: Sweeps, samples: float, uses: int) -> float:
        """No set-up."""
        return 0.0


@dataclass(frozen=True)
class Martens:
    """M = (D + λ)^ξ, D the mean of squared per-sample gradients (Martens 2010, section 4.7).

    ξ is the `exponent`. D is a mean, as the loss is: a sum would outweigh λ. Costs one pass over
    the samples of the curvature batch per update. With `squares` "sites" the same D comes from one
    more forward pass, a reverse sweep and matrix products, many times faster (None: from the pass).

        Σ_n (∂L_n/∂W)² = (S ∘ S)ᵀ (A ∘ A)    for inputs A and cotangents S of a site y = W·a + b

    Parameters without a site still take the pass. Raises ValueError for an exponent outside (0, 1]
    and for other `squares`.
    """

    exponent: float = 0.75
    squares: Literal["sites"] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.exponent <= 1:
            raise ValueError(f"exponent of Martens must be in (0, 1]; got {self.exponent}")
        if self.squares not in (None, "sites"):
            raise ValueError(f'squares of Martens must be "sites", or None; got {self.squares!r}')

    def __call__(self, system: System) -> Tensor | None:
        """diag(M), (P,); 1 where D and λ are both 0."""
        matrix = system.matrix
        by_site = self.squares == "sites"
        diagonal = matrix.squared_gradients_by_site() if by_site else matrix.squared_gradients()
        damped = system.blocks.add_scaled_(
            diagonal.clone(), system.damping, torch.ones_like(diagonal)
        )
        return torch.where(damped > 0, damped, 1.0) ** self.exponent

    def cost(self, sweeps: Sweeps, samples: float, uses: int) -> float:
        """As many operations as a gradient, in both ways; their difference is in seconds.

        With "sites" one gradient more where the graph does not show that the samples are apart.
        """
        return 1.0

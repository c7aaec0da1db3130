"""A preconditioner: set up once per update, then r → M⁻¹ r on all blocks."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from bdhf.optim.products.cost import Sweeps
from bdhf.optim.products.site_samples import SiteSamples
from bdhf.optim.solvers.system import System


class Inverse(Protocol):
    """M⁻¹ of every block, symmetric and positive definite."""

    def __call__(self, r: Tensor) -> Tensor:
        """M⁻¹ r, (P,) -> (P,) in block order; a new tensor."""

    @property
    def why(self) -> str:
        """What it was made of."""


@runtime_checkable
class NeedsSites(Protocol):
    """A preconditioner that is made of the sites y = W·a + b of a model."""

    def check_sites(self, samples: SiteSamples) -> None:
        """Raise CurvatureError, with an alternative, for sites that it cannot use."""


class Preconditioner(Protocol):
    """Computes M for one system."""

    def __call__(self, system: System) -> Tensor | Inverse | None:
        """M⁻¹, or diag(M) > 0 as a vector (P,) in block order; None: M = I."""


@runtime_checkable
class Costed(Protocol):
    """A preconditioner that knows what its set-up costs; without it CG counts two gradients."""

    def cost(self, sweeps: Sweeps, samples: float) -> float:
        """The cost of one set-up, in gradients on a curvature batch of `samples`."""

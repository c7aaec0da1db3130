"""A preconditioner: set up once per update, then r → M⁻¹ r on all blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.products.cost import Sweeps
from bdhf.optim.products.site_samples import SiteSamples
from bdhf.optim.solvers.system import System
from bdhf.optim.vectors.blocks import Blocks


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


@runtime_checkable
class LastingInverse(Inverse, Protocol):
    """M⁻¹ that leaves vectors to the next update."""

    @property
    def products(self) -> tuple[int, ...]:
        """The products with every block that its set-up has made."""

    def see(self, p: Tensor, ap: Tensor) -> None:
        """Look at a direction p and A p, (P,): of an iteration; unused where a block is done."""

    def memory(self, iterations: int) -> Tensor | None:
        """Vectors (k, P) in block order for `System.memory`; None: those of before stay."""


class Preconditioner(Protocol):
    """Computes M for one system."""

    def __call__(self, system: System) -> Tensor | Inverse | None:
        """M⁻¹, or diag(M) > 0 as a vector (P,) in block order; None: M = I."""


@runtime_checkable
class Costed(Protocol):
    """A preconditioner that knows its cost; without this method it counts as two gradients."""

    def cost(self, sweeps: Sweeps, samples: float, uses: int) -> float:
        """One set-up and `uses` of M⁻¹, in gradients on a curvature batch of `samples`."""


@runtime_checkable
class FromProducts(Protocol):
    """What a preconditioner adds that is made from products, its own or those of the solve."""

    def check(self, blocks: Blocks, curvature: Curvature) -> None:
        """Raise ValueError, with an alternative, for blocks or a curvature that do not fit."""

    def products(self, largest: int) -> int:
        """Its own products at one update at most, for blocks of at most `largest` parameters."""

    def flops(self, sizes: Sequence[int], iterations: int) -> float:
        """FLOPs besides products at one update at most, for blocks of these sizes."""


#: Gradients that a preconditioner of unknown cost is taken for.
UNKNOWN_COST = 2.0


def cost_of(preconditioner: Preconditioner, sweeps: Sweeps, samples: float, uses: int) -> float:
    """One set-up and `uses` of M⁻¹ at most, in gradients on a curvature batch of `samples`."""
    if isinstance(preconditioner, Costed):
        return preconditioner.cost(sweeps, samples, uses)
    if isinstance(preconditioner, FromProducts):
        gradient = sweeps.gradient * samples
        flops = preconditioner.flops(sweeps.sizes, uses - 1)
        return flops / gradient if gradient else math.nan
    return UNKNOWN_COST

"""A matrix of the systems with structural damping added: G_bb + μ λ_b S_bb."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bdhf.optim.products.site_samples import SiteSamples
from bdhf.optim.solvers import Solution
from bdhf.optim.solvers.system import Matrix
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class Stiffened:
    """G + diag(μ λ_b) S in the blocks; vectors are (P,) in block order."""

    blocks: Blocks
    matrix: Matrix  # G
    states: Matrix  # S
    scale: Tensor  # μ λ_b, (rows,)

    def __call__(self, v: Tensor, active: Sequence[int] | None = None) -> Tensor:
        """(G_bb + μ λ_b S_bb) v_b for every active block b (None: all), zero elsewhere."""
        return self.blocks.add_scaled_(
            self.matrix(v, active), self.scale, self.states(v, active)
        )  # fmt: skip

    @property
    def factor_rows(self) -> int:
        """The rows of both factors."""
        return self.matrix.factor_rows + self.states.factor_rows

    def factor(self, chunk: int, positions: Tensor | None = None) -> Tensor:
        """The factors of G and of μ λ_b S_bb, one below the other, (R, P); or columns of it."""
        rows = self.states.factor(chunk, positions)
        ones = rows.new_ones(self.blocks.layout.size)
        scale = self.blocks.add_scaled_(torch.zeros_like(ones), self.scale.sqrt(), ones)
        if positions is not None:
            scale = self.blocks.scatter(scale)[positions]
        return torch.cat([self.matrix.factor(chunk, positions), rows.mul_(scale)])

    def squared_gradients(self) -> Tensor:
        """Mean of the squared gradients of the samples, (P,); the damping has none."""
        return self.matrix.squared_gradients()

    def squared_gradients_by_site(self) -> Tensor:
        """The same numbers by matrix products per site, (P,)."""
        return self.matrix.squared_gradients_by_site()

    def site_samples(self) -> SiteSamples:
        """The sites of G alone: a preconditioner approximates it without structural damping."""
        return self.matrix.site_samples()

    def counting(self, key: Hashable) -> AbstractContextManager[None]:
        """Charge the body to the update."""
        return self.matrix.counting(key)

    @property
    def seed(self) -> int:
        """The seed of what a preconditioner draws."""
        return self.matrix.seed

    def undamped(self, solution: Solution) -> Solution:
        """The solution with the φ of its iterates by G alone, at the cost of a product for each.

        φ_b - ½ μ λ_b x_bᵀ S_bb x_b: the reduction ratio is measured without damping.
        """
        iterates = tuple(
            replace(iterate, model=iterate.model - 0.5 * self.scale * self._norm(iterate.x))
            for iterate in solution.iterates
        )
        return replace(solution, iterates=iterates)

    def _norm(self, x: Tensor) -> Tensor:
        """x_bᵀ S_bb x_b, (rows,)."""
        return self.blocks.dot(x, self.states(x))

"""The matrix of an update: micro-batches added up, cut to blocks, blended with the full matrix.

G = Σ_i w_i G_i over the micro-batches i,    w_i = M_i / M, their shares of the loss terms
blended: α G + (1 - α) · (G cut to the blocks of a partition)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.products.linearisation import Linearisation
from bdhf.optim.products.site_samples import SiteSamples
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class BlockProduct:
    """The block-diagonal curvature of one batch at one θ: loss, gradient and products."""

    reason: str  # for the choice of the method
    first: Linearisation  # of the first micro-batch
    parts: tuple[tuple[float, Linearisation], ...]  # weight and micro-batch
    blocks: Blocks
    samples: int  # N where the loss is a mean over samples, 1 where it is a sum
    dtype: torch.dtype  # in which matrix products are computed
    flops: Flops
    sites: Callable[[], SiteSamples]  # records them
    site_squares: Callable[[], Tensor]  # Σ_i w_i² of the squared gradients of micro-batch i, (P,)
    seed: int  # of what a solver draws

    @property
    def method(self) -> str:
        """How products are computed; after a failure in a product, the method that replaced it."""
        return self.first.method

    @property
    def why(self) -> str:
        """The reason for the method, and how it computes products."""
        return "; ".join(filter(None, [self.reason, self.first.why]))

    @property
    def loss(self) -> Tensor:
        """The loss of the whole batch, ()."""
        return _sum([weight * part.loss for weight, part in self.parts])

    @property
    def gradient(self) -> Tensor:
        """Its gradient, (P,) in block order."""
        if len(self.parts) == 1 and self.parts[0][0] == 1.0:
            return self.blocks.gather(self.parts[0][1].gradient)
        return self.blocks.gather(_sum([weight * part.gradient for weight, part in self.parts]))

    def __call__(self, v: Tensor, active: Sequence[int] | None = None) -> Tensor:
        """G_bb v_b for every active block b (None: all), zero elsewhere; block order."""
        blend = self.blocks.blend
        if blend is None:
            return self.cut_to(self.blocks, v, active)
        if active is not None and not len(active):
            return torch.zeros_like(v)
        inner = blend.inner
        apart = inner.scatter(self.cut_to(inner, inner.gather(self.blocks.scatter(v))))
        whole = self.cut_to(self.blocks, v) if blend.alpha else torch.zeros_like(v)
        return blend.alpha * whole + (1 - blend.alpha) * self.blocks.gather(apart)

    def cut_to(self, blocks: Blocks, v: Tensor, active: Sequence[int] | None = None) -> Tensor:
        """The product of the same matrix under other blocks, in their order."""
        rows = range(len(blocks.rows)) if active is None else active
        total: Tensor | None = None
        for weight, part in self.parts:
            made = part.product(blocks, v, rows)
            made = made if weight == 1.0 else made.mul_(weight)  # in place: as long as θ
            total = made if total is None else total.add_(made)
        assert total is not None  # there is at least one micro-batch
        return total

    def together(self, blocks: Blocks) -> bool:
        """Whether one sweep takes all of these blocks."""
        return all(part.together(blocks) for _, part in self.parts)

    @property
    def factor_rows(self) -> int:
        """R, the rows that `factor` has. Raises ValueError for a curvature that is no Jᵀ H J."""
        rows = sum(part.factor_rows for _, part in self.parts)
        return rows if self.blocks.blend is None else rows * (1 + len(self.blocks.blend.inner.rows))

    def factor(self, chunk: int, positions: Tensor | None = None) -> Tensor:
        """A with G_bb = A_bᵀA_b for every block b, (R, P) in block order.

        With flat `positions` (n,) only these columns, (R, n), which the caller counts.
        Raises ValueError for a curvature that is no Jᵀ H J.
        """
        if positions is not None:
            return self._columns(chunk, positions)
        rows = torch.cat([weight**0.5 * part.factor(chunk) for weight, part in self.parts])
        blend = self.blocks.blend
        if blend is None:
            return self.blocks.gather(rows)
        cut = [torch.zeros_like(rows) for _ in blend.inner.rows]
        for piece, positions in zip(cut, blend.inner.positions(), strict=True):
            piece[:, positions] = (1 - blend.alpha) ** 0.5 * rows[:, positions]
        return self.blocks.gather(torch.cat([blend.alpha**0.5 * rows, *cut]))

    def _columns(self, chunk: int, positions: Tensor) -> Tensor:
        """The columns of A at flat positions (n,), (R, n)."""
        made = [weight**0.5 * part.factor(chunk, positions) for weight, part in self.parts]
        columns, blend = torch.cat(made), self.blocks.blend
        if blend is None:
            return columns
        cut = [
            torch.where(torch.isin(positions, inner.to(positions.device)), columns, 0.0)
            for inner in blend.inner.positions()
        ]
        scaled = [(1 - blend.alpha) ** 0.5 * piece for piece in cut]
        return torch.cat([blend.alpha**0.5 * columns, *scaled])

    def site_samples(self) -> SiteSamples:
        """The sites of the batch, with inputs and cotangents, by one more forward pass."""
        return self.sites()

    def counting(self, key: Hashable) -> AbstractContextManager[None]:
        """Charge the body to the update, counted once per `key` and shapes of the batch."""
        return self.flops.counting((key, *(part.shapes for _, part in self.parts)))

    def squared_gradients(self) -> Tensor:
        """The mean (for a summed loss: the sum) of squared gradients of the samples, (P,).

        In block order; with the reduction of the loss, so that it is comparable to the damping.
        """
        squares = _sum([weight**2 * part.squared_gradients() for weight, part in self.parts])
        return self.blocks.gather(squares * self.samples)

    def squared_gradients_by_site(self) -> Tensor:
        """`squared_gradients`, by matrix products with the inputs and cotangents of every site."""
        return self.blocks.gather(self.site_squares() * self.samples)


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total

"""A preconditioner from the Ritz pairs of the solves before, without a product of its own.

M⁻¹ = U (θ_k + λ)(Θ + λI)⁻¹ Uᵀ + (I - UUᵀ)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.solvers.preconditioners.low_rank import (
    LowRankInverse,
    low_rank_flops,
    low_rank_inverse,
    smallest_pair,
    stacks,
)
from bdhf.optim.solvers.preconditioners.ritz import ritz_pairs
from bdhf.optim.solvers.system import System
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class Recycled:
    """M = (Θ + λI) / (θ_k + λ) on the largest Ritz vectors of the solves before, and I beyond them.

    The spectral preconditioner (Giraud & Gratton 2006; of limited memory, Gratton, Sartenaer &
    Tshimanga 2011), with the pairs of eigCG's kind (Stathopoulos & Orginos 2010): after a solve,
    the `vectors` largest Ritz pairs of its first `directions` directions and of the pairs before.
    No products are made for it, and any symmetric matrix will do. The first update has M = I. The
    state of the optimizer holds `vectors` vectors of the parameters, a solve as many again and two
    per direction.
    Raises ValueError for settings below 1.
    """

    vectors: int = 10
    directions: int = 30

    def __post_init__(self) -> None:
        for name in ("vectors", "directions"):
            if getattr(self, name) < 1:
                raise ValueError(f"Recycled {name} must be at least 1; got {getattr(self, name)}")

    def check(self, blocks: Blocks, curvature: Curvature) -> None:
        """Accept any blocks and any symmetric matrix."""

    def products(self, largest: int) -> int:
        """None: those of the solve are enough."""
        return 0

    def flops(self, sizes: Sequence[int], iterations: int) -> float:
        """Inner products of all vectors and small eigenproblems, and M⁻¹ r at every iteration."""
        m, k = min(self.directions, iterations), self.vectors
        products = 2 * (m + k) * (2 * m + 2 * k) + 4 * k**2
        small = 25 * (m + k) ** 3
        return sum(products * n + small for n in sizes) + low_rank_flops(k, sizes, iterations)

    def __call__(self, system: System) -> RecycledInverse:
        """M⁻¹ of the pairs that the optimizer keeps."""
        inverse = None
        if system.memory is not None:
            rest = smallest_pair(system.blocks, system.memory)
            why = f"Ritz pairs of the last solves, at most {len(system.memory)}"
            inverse = low_rank_inverse(system, system.memory, rest, why)
        return RecycledInverse(system, inverse, self.vectors, self.directions)


@dataclass(frozen=True)
class RecycledInverse:
    """M⁻¹ of one solve, and the directions of the solve."""

    system: System
    inverse: LowRankInverse | None
    vectors: int
    most: int  # directions to keep
    directions: list[Tensor] = field(default_factory=list)  # p
    images: list[Tensor] = field(default_factory=list)  # G p

    @property
    def products(self) -> tuple[int, ...]:
        """None."""
        return (0,) * len(self.system.blocks.rows)

    @property
    def why(self) -> str:
        """The number of pairs."""
        return "no pairs before the first solve" if self.inverse is None else self.inverse.why

    def __call__(self, r: Tensor) -> Tensor:
        """M⁻¹ r, (P,) -> (P,) in block order."""
        return r.clone() if self.inverse is None else self.inverse(r)

    def see(self, p: Tensor, ap: Tensor) -> None:
        """Keep a direction and its image, zero where a block is done or not finite."""
        if len(self.directions) >= self.most:
            return
        blocks, p, gp = self.system.blocks, p.clone(), ap.clone()
        blocks.add_scaled_(gp, -self.system.damping, p)
        norms = blocks.dot(p, p), blocks.dot(gp, gp)
        blocks.zero_(~((norms[0] > 0) & norms[0].isfinite() & norms[1].isfinite()), p, gp)
        self.directions.append(p)
        self.images.append(gp)

    def memory(self, iterations: int) -> Tensor | None:
        """√θ u of the Ritz pairs after as many iterations, (vectors, P); None after none."""
        p, images = self.directions[:iterations], self.images[:iterations]
        if not p:
            return None
        with self.system.matrix.counting(("Ritz pairs", self.vectors, len(p), self._pairs)):
            return self._ritz(torch.stack(p), torch.stack(images))

    @property
    def _pairs(self) -> int:
        """The number of pairs of before."""
        return 0 if self.system.memory is None else len(self.system.memory)

    def _ritz(self, p: Tensor, images: Tensor) -> Tensor:
        """√θ u of the Ritz pairs, (vectors, P), from directions and their images, (m, P)."""
        blocks, before = self.system.blocks, self.system.memory
        made = p[0].new_empty(self.vectors, len(p[0]))
        w = made[:0] if before is None else before
        parts = [stacks(blocks, v) for v in (made, p, images, w)]
        for target, directions, products, pairs in zip(*parts, strict=True):
            target.copy_(ritz_pairs(directions, products, pairs, self.vectors))
        return made

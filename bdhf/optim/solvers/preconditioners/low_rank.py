"""M⁻¹ from approximate eigenpairs (θ_i, u_i) of the G of every block, i ≤ k.

    M⁻¹ = U σ(Θ + λI)⁻¹ Uᵀ + (I - UUᵀ) = I + Σ_i c_i w_i w_iᵀ,    c_i = (σ / (θ_i + λ) - 1) / θ_i

The pairs are kept as w_i = √θ_i u_i, (k, P) in block order: the eigenvalues are squared lengths,
and a zero vector is no pair. G is about Σ w_i w_iᵀ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.solvers.system import Matrix, System
from bdhf.optim.vectors.blocks import Blocks


def low_rank_flops(rank: int, sizes: Sequence[int], iterations: int) -> float:
    """FLOPs of M⁻¹ r before the first iteration and after each, for blocks of these sizes."""
    return 4.0 * rank * sum(sizes) * (iterations + 1)


def stacks(blocks: Blocks, vectors: Tensor) -> list[Tensor]:
    """Views (rows, k, n) of vectors (k, P) in block order, one per block matrix."""
    count = len(vectors)
    parts = vectors.split([rows * n for rows, n in blocks.shapes], dim=1)
    shaped = zip(parts, blocks.shapes, strict=True)
    return [part.view(count, rows, n).transpose(0, 1) for part, (rows, n) in shaped]


def eigenvalues(blocks: Blocks, vectors: Tensor) -> Tensor:
    """θ of every block, (k, P) -> (k, rows) in float64."""
    lengths = [blocks.dot(vector, vector, torch.float64) for vector in vectors]
    return torch.stack(lengths) if lengths else vectors.new_zeros((0, len(blocks.rows))).double()


def positive(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Eigenvalues (..., k), the largest first; 0 where rounding of `dtype` hides them."""
    floor = torch.finfo(dtype).eps * values[..., :1]
    return torch.where(values > floor, values, 0.0).clamp_min(0.0)


@dataclass(frozen=True)
class LowRankInverse:
    """M⁻¹ = I + Σ_i c_i w_i w_iᵀ in every block, symmetric and positive definite."""

    blocks: Blocks
    matrix: Matrix  # which counts
    vectors: Tensor  # w, (k, P)
    coefficients: tuple[Tensor, ...]  # c, (rows, k, 1) in float64, one per block matrix
    why: str

    def __call__(self, r: Tensor) -> Tensor:
        """M⁻¹ r, (P,) -> (P,) in block order: 4 k P operations."""
        with self.matrix.counting(("M⁻¹ of low rank", len(self.vectors))):
            return self._times(r)

    def _times(self, r: Tensor) -> Tensor:
        out = r.clone()
        parts = zip(
            self.blocks.matrices(out), self.blocks.matrices(r), stacks(self.blocks, self.vectors),
            self.coefficients, strict=True,
        )  # fmt: skip
        for target, source, w, c in parts:
            along = (w @ source.unsqueeze(2)).double() * c
            target += (along.to(w.dtype).mT @ w).squeeze(1)
        return out


def low_rank_inverse(system: System, vectors: Tensor, rest: Tensor, why: str) -> LowRankInverse:
    """M⁻¹ of pairs w (k, P), with σ = `rest` + λ; `rest` is (rows,), what G is beyond the pairs.

    Where σ is 0 it is the smallest θ. The smallest eigenvalue of M⁻¹ is above rounding.
    """
    values, damping = eigenvalues(system.blocks, vectors), system.damping.double()
    kept = values > 0
    smallest = torch.where(kept, values, torch.inf).amin(0)
    sigma = torch.where(rest + damping > 0, rest.double() + damping, smallest)
    least = 16 * len(vectors) * torch.finfo(vectors.dtype).eps
    ratio = (sigma / (values + damping)).clamp_min(least)
    c = torch.where(kept, (ratio - 1) / values, 0.0)
    rows = [rows for rows, _ in system.blocks.shapes]
    coefficients = tuple(part.T.unsqueeze(2) for part in c.split(rows, dim=1))
    return LowRankInverse(system.blocks, system.matrix, vectors, coefficients, why)


def smallest_pair(blocks: Blocks, vectors: Tensor) -> Tensor:
    """The smallest θ > 0 of every block, (rows,); 0 in a block without pairs."""
    values = eigenvalues(blocks, vectors)
    smallest = torch.where(values > 0, values, torch.inf).amin(0)
    return torch.where(smallest.isfinite(), smallest, 0.0)

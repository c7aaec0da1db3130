"""Second moments E = Σ x xᵀ of vectors, one matrix per group, and the inverses of E + shift · I.

A moment of few vectors keeps them, and is inverted by Woodbury's identity,

    (XᵀX + h I)⁻¹ v = (v - Xᵀ(XXᵀ + h I)⁻¹ X v) / h

so that the decomposition has the size of the smaller side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Solve = Callable[[Tensor], Tensor]  # (groups, d, m) -> (groups, d, m)


class Moment(Protocol):
    """E of every group, (groups, d, d)."""

    @property
    def form(self) -> str:
        """How it is inverted."""

    @property
    def size(self) -> int:
        """D."""

    @property
    def mean(self) -> Tensor:
        """The mean of the diagonal, (groups,)."""

    def dense(self) -> Tensor:
        """The matrices, (groups, d, d)."""

    def damped(self, shift: Tensor) -> Solve:
        """The inverse of E + diag(shift), for shift ≥ 0 of shape (groups, d) or (groups, 1)."""


@dataclass(frozen=True)
class DenseMoment:
    """E as a matrix, inverted by its Cholesky decomposition.

    The inverse is multiplied out: a solve with triangles takes 2 to 6 times as long as a product.
    """

    matrix: Tensor  # (groups, d, d)

    @property
    def form(self) -> str:
        """How it is inverted."""
        return "Cholesky"

    @property
    def size(self) -> int:
        """D."""
        return self.matrix.shape[2]

    @property
    def mean(self) -> Tensor:
        """The mean of the diagonal, (groups,)."""
        return self.matrix.diagonal(dim1=1, dim2=2).mean(1)

    def dense(self) -> Tensor:
        """The matrices, (groups, d, d)."""
        return self.matrix

    def damped(self, shift: Tensor) -> Solve:
        """The inverse of E + diag(shift)."""
        damped = self.matrix.clone()
        damped.diagonal(dim1=1, dim2=2).add_(shift)
        inverse = torch.cholesky_inverse(_cholesky(damped))
        return lambda v: inverse @ v


@dataclass(frozen=True)
class FewVectors:
    """E = XᵀX of fewer vectors than entries; takes one shift per group."""

    vectors: Tensor  # (groups, R, d)

    @property
    def form(self) -> str:
        """How it is inverted."""
        return "Woodbury"

    @property
    def size(self) -> int:
        """D."""
        return self.vectors.shape[2]

    @property
    def mean(self) -> Tensor:
        """The mean of the diagonal, (groups,)."""
        return self.vectors.square().sum((1, 2)) / self.vectors.shape[2]

    def dense(self) -> Tensor:
        """The matrices, (groups, d, d)."""
        return self.vectors.mT @ self.vectors

    def damped(self, shift: Tensor) -> Solve:
        """The inverse of E + shift · I, for shift (groups, 1)."""
        x, h = self.vectors, shift[:, :, None]
        gram = x @ x.mT
        gram.diagonal(dim1=1, dim2=2).add_(shift)
        inner = torch.cholesky_solve(x, _cholesky(gram))  # (XXᵀ + h I)⁻¹ X
        return lambda v: (v - x.mT @ (inner @ v)).div_(h)


@dataclass(frozen=True)
class DiagonalMoment:
    """A diagonal E."""

    entries: Tensor  # (groups, d)

    @property
    def form(self) -> str:
        """How it is inverted."""
        return "diagonal"

    @property
    def size(self) -> int:
        """D."""
        return self.entries.shape[1]

    @property
    def mean(self) -> Tensor:
        """The mean of the diagonal, (groups,)."""
        return self.entries.mean(1)

    def dense(self) -> Tensor:
        """The matrices, (groups, d, d)."""
        return torch.diag_embed(self.entries)

    def damped(self, shift: Tensor) -> Solve:
        """The inverse of E + diag(shift)."""
        inverse = 1 / (self.entries + shift)[:, :, None]
        return lambda v: inverse * v


@dataclass(frozen=True)
class ScalarMoment:
    """E = c · I, for one group."""

    c: Tensor  # ()
    d: int

    @property
    def form(self) -> str:
        """How it is inverted."""
        return "multiple of I"

    @property
    def size(self) -> int:
        """D."""
        return self.d

    @property
    def mean(self) -> Tensor:
        """The mean of the diagonal, (1,)."""
        return self.c[None]

    def dense(self) -> Tensor:
        """The matrix, (1, d, d)."""
        return torch.eye(self.d, dtype=self.c.dtype, device=self.c.device)[None] * self.c

    def damped(self, shift: Tensor) -> Solve:
        """The inverse of E + diag(shift)."""
        inverse = 1 / (self.c + shift)[:, :, None]
        return lambda v: inverse * v


@dataclass(frozen=True)
class Cut:
    """The entries of E that a partition leaves: those of two features of one block."""

    labels: Tensor  # the block of every feature, (groups, d)
    apart: bool  # whether every feature is a block of its own

    @property
    def mask(self) -> Tensor:
        """Whether two features are of one block, (groups, d, d)."""
        return self.labels[:, :, None] == self.labels[:, None, :]


class MomentSum:
    """Adds up E of vectors that arrive in chunks; `count` is the number of all of them."""

    def __init__(self, count: int, like: Tensor, groups: int, size: int, cut: Cut | None) -> None:
        self._cut, self._few = cut, 2 * count < size and cut is None
        self._kept: list[Tensor] = []
        shape = (groups, size) if cut is not None and cut.apart else (groups, size, size)
        self._sum = like.new_zeros((groups, 0, size) if self._few else shape)

    def add(self, vectors: Tensor) -> None:
        """Add vectors (R, groups, d)."""
        by_group = vectors.transpose(0, 1)
        if self._few:
            self._kept.append(by_group)
        elif self._sum.dim() == 2:
            self._sum += by_group.square().sum(1)
        else:
            self._sum.baddbmm_(by_group.mT, by_group)

    def moment(self, scale: float = 1.0) -> Moment:
        """E times `scale`."""
        if self._few:
            return FewVectors(torch.cat([self._sum, *self._kept], 1) * scale**0.5)
        if self._sum.dim() == 2:
            return DiagonalMoment(self._sum * scale)
        matrix = self._sum * scale
        return DenseMoment(matrix) if self._cut is None else cut_to(matrix, self._cut)


def cut_to(matrix: Tensor, cut: Cut) -> Moment:
    """A matrix (groups, d, d) without the entries of features of different blocks."""
    if cut.apart:
        return DiagonalMoment(matrix.diagonal(dim1=1, dim2=2))
    return DenseMoment(matrix * cut.mask)


def _cholesky(matrix: Tensor) -> Tensor:
    """Its lower factor; NaN where it is not positive definite, so that a solve reports it."""
    lower, info = torch.linalg.cholesky_ex(matrix)
    return torch.where((info == 0)[:, None, None], lower, torch.nan)

"""One block's (A_bᵀA_b + λI) x = b through the pieces of A_b, by the smaller Gram matrix.

    x = (b - A_bᵀ(A_b A_bᵀ + λI)⁻¹ A_b b) / λ

A_b is (R, n): R ≥ n takes A_bᵀA_b instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bdhf.optim.solvers.gram import HELD_BYTES


class Piece(Protocol):
    """Some columns of A."""

    @property
    def size(self) -> int:
        """How many."""

    @property
    def positions(self) -> Tensor:
        """The flat position of every column, (size,)."""

    @property
    def alone(self) -> bool:
        """Whether `condensed` has fewer rows."""

    def columns(self, total: int) -> Tensor:
        """A, (R, size), for R = `total`."""

    def condensed(self, total: int) -> Tensor:
        """A with the same AᵀA, of fewer rows where there are such."""

    def add_gram(self, gram: Tensor, max_bytes: int) -> None:
        """Add A Aᵀ in place, (R, R)."""

    def forward(self, flat: Tensor, total: int) -> Tensor:
        """A v for the entries of v (P,) that belong to it, (R,)."""

    def add_adjoint(self, w: Tensor, flat: Tensor) -> None:
        """Add Aᵀ w, (R,), to a flat vector (P,) in place."""


@dataclass(frozen=True)
class BlockFactor:
    """A_b as pieces; entries of the block in no piece have columns of zeros."""

    pieces: Sequence[Piece]
    rows: int  # R

    @property
    def size(self) -> int:
        """Columns in pieces."""
        return sum(piece.size for piece in self.pieces)

    @property
    def _alone(self) -> bool:
        return len(self.pieces) == 1 and self.pieces[0].alone

    def solve(self, b: Tensor, damping: Tensor, x: Tensor) -> Tensor:
        """Write (A_bᵀA_b + λI)⁻¹ b on the entries of the pieces, and return ‖A_b x‖², ().

        `b` and `x` are flat, (P,); `x` is b / λ on entry.
        """
        if not self.pieces:
            return b.new_zeros(())
        if self.size <= self.rows or self._alone:
            return self._solve_small(b, damping, x)
        gram = b.new_zeros(self.rows, self.rows)
        for piece in self.pieces:
            piece.add_gram(gram, HELD_BYTES)
        lower = damped_cholesky(gram, damping)
        del gram
        inner = torch.cholesky_solve(self._forward(b)[:, None], lower)[:, 0]
        del lower
        for piece in self.pieces:
            piece.add_adjoint(-inner / damping, x)
        return self._forward(x).square().sum()

    def _solve_small(self, b: Tensor, damping: Tensor, x: Tensor) -> Tensor:
        """Solve with A_b as a matrix, of at most R² entries."""
        if self._alone:
            a = self.pieces[0].condensed(self.rows)
        else:
            a = torch.cat([piece.columns(self.rows) for piece in self.pieces], 1)
        at = torch.cat([piece.positions for piece in self.pieces]).to(b.device)
        answer = woodbury(a, b[at], damping)
        x[at] = answer
        return (a @ answer).square().sum()

    def _forward(self, v: Tensor) -> Tensor:
        """A_b v, (R,)."""
        return torch.stack([piece.forward(v, self.rows) for piece in self.pieces]).sum(0)


def woodbury(a: Tensor, rhs: Tensor, damping: Tensor) -> Tensor:
    """(aᵀa + λI)⁻¹ rhs, by the smaller of its two Gram matrices; a is (R, n)."""
    rows, n = a.shape
    gram = a @ a.T if rows < n else a.T @ a
    lower = damped_cholesky(gram, damping)
    if n <= rows:
        return torch.cholesky_solve(rhs[:, None], lower)[:, 0]
    inner = torch.cholesky_solve((a @ rhs)[:, None], lower)[:, 0]
    return (rhs - a.T @ inner) / damping


def damped_cholesky(gram: Tensor, damping: Tensor) -> Tensor:
    """The lower factor of gram + λI, in the memory of `gram` and one more matrix.

    NaN where it is not positive definite: λ is below rounding, and there is no answer.
    """
    gram.diagonal().add_(damping)
    lower, info = torch.linalg.cholesky_ex(gram)
    result: Tensor = lower.mul_(torch.where(info == 0, 1.0, torch.nan))
    return result

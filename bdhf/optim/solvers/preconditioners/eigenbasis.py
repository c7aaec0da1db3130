"""M = Q (D + λ) Qᵀ on the rows of every site, Q = Q_S ⊗ Q_A of the eigenvectors of S and A.

    M⁻¹ R = Q_S ((Q_Sᵀ R Q_A) / (D + λ)) Q_Aᵀ

Where fewer vectors than entries make A or S, their span has fewer columns r than d, D is zero
beside it, and

    M⁻¹ R = (R - Q_S ((Q_Sᵀ R Q_A) ∘ D / (D + λ)) Q_Aᵀ) / λ
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.products.site_samples import SitePart
from bdhf.optim.solvers.preconditioners.kronecker import solve_rows
from bdhf.optim.solvers.preconditioners.moments import DiagonalMoment, FewVectors, Moment

#: The least λ, in rounding units of the norm of D.
LEAST_UNITS = 16


@dataclass(frozen=True)
class Basis:
    """Orthonormal columns Q of every group."""

    columns: Tensor | None  # (groups, d, r); None: the unit vectors, r = d

    @property
    def is_whole(self) -> bool:
        """Whether r = d."""
        return self.columns is None or self.columns.shape[1] == self.columns.shape[2]

    def coordinates(self, v: Tensor) -> Tensor:
        """Qᵀ v, (groups, d, m) -> (groups, r, m)."""
        return v if self.columns is None else self.columns.mT @ v

    def combine(self, c: Tensor) -> Tensor:
        """Q c, (groups, r, m) -> (groups, d, m)."""
        return c if self.columns is None else self.columns @ c

    def coordinates_of(self, vectors: Tensor) -> Tensor:
        """Qᵀ x of vectors x, (..., groups, d) -> (..., groups, r)."""
        if self.columns is None:
            return vectors
        by_group = vectors.flatten(0, -3).transpose(0, 1) @ self.columns
        return by_group.transpose(0, 1).reshape(*vectors.shape[:-2], *by_group.shape[::2])


def eigenbasis(moment: Moment, labels: Tensor | None, spans: bool) -> Basis:
    """The eigenvectors of E; NaN in a group whose E is not finite.

    `labels` (groups, d) are the blocks of its entries: no eigenvector has entries of two. None: one
    block. `spans`: all that is expressed in the basis lies in the span of the vectors of E, so that
    a basis of it is enough.
    """
    if isinstance(moment, DiagonalMoment):
        return Basis(None)
    if isinstance(moment, FewVectors) and spans:
        q, r = torch.linalg.qr(moment.vectors.mT)
        return Basis(q @ _eigenvectors(r @ r.mT, None))
    return Basis(_eigenvectors(moment.dense(), labels))


def _eigenvectors(matrix: Tensor, labels: Tensor | None) -> Tensor:
    """Of symmetric matrices (groups, d, d); those of a block lie in the columns of its entries.

    Block by block, since an eigenvalue that two blocks share would mix them.
    """
    finite = matrix.isfinite().flatten(1).all(1)[:, None, None]
    safe = torch.where(finite, matrix, 0.0)  # eigh raises for NaN
    if labels is None or bool((labels == labels[:, :1]).all()):
        columns = torch.linalg.eigh(safe).eigenvectors
    else:
        columns = torch.zeros_like(safe)
        for group, blocks in enumerate(labels.cpu()):
            for block in blocks.unique():
                entries = (blocks == block).nonzero()[:, 0].to(safe.device)
                own = (group, entries[:, None], entries)
                columns[own] = torch.linalg.eigh(safe[own]).eigenvectors
    return torch.where(finite, columns, torch.nan)


@dataclass(frozen=True)
class EigenFactors:
    """The curvature D of one part of a site in its eigenbasis: G ≈ Q D Qᵀ on its rows."""

    part: SitePart
    a: Basis
    s: Basis
    squares: Tensor  # D, (groups, r of S, r of A)

    def damped(self, damping: Tensor) -> EigenInverse:
        """M⁻¹ of these rows, for λ of every block, (rows,).

        A λ below the rounding of D is raised to it, since M⁻¹ would not be positive beside a span;
        one of 0 beside D = 0 is 1.
        """
        groups = len(self.squares)
        lam = damping[self.part.blocks.to(damping.device)].view(groups, -1, 1)
        floor = LEAST_UNITS * torch.finfo(lam.dtype).eps * self.squares.flatten(1).norm(dim=1)
        shift = torch.maximum(lam, floor[:, None, None])
        return EigenInverse(self, torch.where(shift == 0, 1.0, shift))


@dataclass(frozen=True)
class EigenInverse:
    """M⁻¹ on the rows of one part of a site."""

    factors: EigenFactors
    shift: Tensor  # λ of every feature, (groups, features / groups, 1)

    def __call__(self, r: Tensor, out: Tensor) -> None:
        """M⁻¹ of its rows in r, (P,) in the order of the parameters, into `out`."""
        solve_rows(self.factors.part, self._solve, r, out)

    def _solve(self, matrix: Tensor) -> Tensor:
        """M⁻¹ R, (features, d) -> the same."""
        a, s, squares = self.factors.a, self.factors.s, self.factors.squares
        rows = matrix.reshape(len(squares), -1, matrix.shape[1])
        inner = a.coordinates(s.coordinates(rows).mT).mT
        shift = self.shift if s.is_whole else self.shift[:, :1]  # one block: one λ
        if a.is_whole and s.is_whole:
            return self._back(inner / (squares + shift)).reshape(matrix.shape)
        within = self._back(inner * (squares / (squares + shift)))
        return ((rows - within) / self.shift).reshape(matrix.shape)

    def _back(self, inner: Tensor) -> Tensor:
        """Q_S C Q_Aᵀ."""
        return self.factors.a.combine(self.factors.s.combine(inner).mT).mT

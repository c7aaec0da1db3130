"""M = S ⊗ A for the rows of every site, with factored damping (Martens & Grosse 2015, §6.3).

    M⁻¹ R = (S + √λ/π I)⁻¹ R (A + π√λ I)⁻¹,    π² = (tr A / dim A) / (tr S / dim S)

R holds the rows of a weight and its bias, one per feature. Where the features of a site lie in
several blocks, S is cut to them: a block of one feature o has S_oo, and all share A.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.products.site_samples import SitePart, SiteSize
from bdhf.optim.solvers.preconditioners.moments import Moment, ScalarMoment, Solve
from bdhf.optim.solvers.system import Matrix
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class Factors:
    """The factors of one part of a site: G ≈ S ⊗ A on its rows."""

    part: SitePart
    a: Moment  # of the inputs, (groups, d, d): a mean
    s: Moment  # of the cotangents, (groups, features / groups, same): a sum

    def damped(self, damping: Tensor) -> DampedFactors:
        """M⁻¹ of these rows, for λ of every block, (rows,); exact damping where S = c · I."""
        lam = damping[self.part.blocks.to(damping.device)].view(len(self.s.mean), -1)
        if isinstance(self.s, ScalarMoment):  # c A + λ I = c (A + λ/c I)
            by_a = _floored(lam.mean(1, keepdim=True) / self.s.c, self.a)
            none = torch.zeros_like(by_a)
            return DampedFactors(self.part, 1, self.a.damped(by_a), self.s.damped(none))
        pi = _ratio(self.a.mean, self.s.mean)
        root = lam.sqrt()
        if self.part.distinct == 1:
            root = root[:, :1]
        by_a = _floored(pi[:, None] * root.mean(1, keepdim=True), self.a)
        by_s = _floored(root / pi[:, None], self.s)
        return DampedFactors(self.part, len(pi), self.a.damped(by_a), self.s.damped(by_s))


def kfac_flops(site: SiteSize, samples: float, columns: float, uses: int) -> float:
    """FLOPs of A and S of one part of a site, their inverses, and `uses` of M⁻¹, at most.

    `samples` are those of the curvature batch, with `columns` of the root each.
    """
    inputs, size = samples * site.positions, site.features
    by_a = by_s = (0.0, 0.0)
    if not site.one_hot:
        by_a = _inverse_flops(inputs, site.entries)
    if not site.apart:
        by_s = _inverse_flops(inputs * columns, size)
    step = site.entries * by_s[1] + size * by_a[1]
    return site.groups * (by_a[0] + by_s[0] + uses * step)


def _inverse_flops(vectors: float, size: int) -> tuple[float, float]:
    """FLOPs of a moment and its inverse, and of a product of the inverse with a vector."""
    if 2 * vectors < size:
        return 4 * vectors**2 * size + vectors**3 / 3, 4 * vectors * size
    return 2 * vectors * size**2 + size**3, 2.0 * size**2


def _ratio(a: Tensor, s: Tensor) -> Tensor:
    """π of every group; 1 where a factor is zero."""
    pi = (a / s).sqrt()
    return torch.where(pi.isfinite() & (pi > 0), pi, 1.0)


def _floored(shift: Tensor, moment: Moment) -> Tensor:
    """A shift that is not lost in rounding; above 0 even where λ and the factor are 0."""
    floor = 2 * torch.finfo(shift.dtype).eps * moment.size * moment.mean[:, None]
    shift = torch.maximum(shift, floor)
    return torch.where(shift > 0, shift, 1.0)


@dataclass(frozen=True)
class DampedFactors:
    """M⁻¹ on the rows of one part of a site."""

    part: SitePart
    groups: int  # of features that share inputs
    by_a: Solve
    by_s: Solve

    def __call__(self, r: Tensor, out: Tensor) -> None:
        """M⁻¹ of its rows in r, (P,) in the order of the parameters, into `out`."""
        solve_rows(self.part, self._solve, r, out)

    def _solve(self, matrix: Tensor) -> Tensor:
        """(S + …)⁻¹ R (A + …)⁻¹, (features, d) -> the same."""
        by_group = matrix.reshape(self.groups, -1, matrix.shape[1])
        return self.by_a(self.by_s(by_group).mT).mT.reshape(matrix.shape)


def solve_rows(part: SitePart, solve: Callable[[Tensor], Tensor], r: Tensor, out: Tensor) -> None:
    """`solve` of the rows (features, d) of one part in r, (P,), into `out`."""
    rows = [rows for rows in (part.weight, part.bias) if rows is not None]
    parts = [each.of(r) for each in rows]
    solved = solve(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
    columns = solved.split([each.shape[1] for each in parts], 1)
    for target, column in zip(rows, columns, strict=True):
        target.write(out, column)


@dataclass(frozen=True)
class KroneckerInverse:
    """M⁻¹ of all sites, and a diagonal on the entries of no site."""

    blocks: Blocks
    matrix: Matrix  # charges the work to the update
    factors: Sequence[Callable[[Tensor, Tensor], None]]  # M⁻¹ of the rows of a part, into a tensor
    rest: Tensor  # flat positions, (R,)
    diagonal: Tensor  # M on them, (R,)
    why: str

    def __call__(self, r: Tensor) -> Tensor:
        """M⁻¹ r, (P,) -> (P,) in block order."""
        flat = self.blocks.scatter(r.nan_to_num())  # a NaN stays in its block: CG sees it in r
        out = torch.empty_like(flat)
        with self.matrix.counting("K-FAC step"):
            for factors in self.factors:
                factors(flat, out)
        if len(self.rest):
            out[self.rest] = flat[self.rest] / self.diagonal
        return self.blocks.gather(out)

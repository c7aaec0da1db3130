"""Momentum: the solver's direction and the last step, combined in every block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from bdhf.optim.solvers import Iterate, Solution, System

#: Smallest relative determinant of a plane, in rounding units: below it, rounding decides.
FLATTEST = 10.0


class Momentum(Protocol):
    """Combines the solver's direction with the last step, in every block."""

    @property
    def products(self) -> int:
        """The most products with all blocks in one update."""

    def combine(self, system: System, solution: Solution, last: Tensor | None) -> Solution:
        """The solution with combined iterates, the steps to choose from, and all products counted.

        `last` is the step of the last update, θ_k - θ_{k-1}, (P,) in block order; None at the
        first update. Changes none of its arguments, and leaves `x`: the next solve starts there.
        """


def products_of(momentum: Momentum | None) -> int:
    """The most products with all blocks that it adds to an update; 0 for None."""
    return 0 if momentum is None else momentum.products


@dataclass(frozen=True)
class QuadraticMomentum:
    """The minimiser of the quadratic model over the span of direction and last step, per block.

    With the solver's direction d, the last step δ = θ_k - θ_{k-1} and A = G_bb + λI:

        d ← a d + b δ,     [dᵀAd  dᵀAδ; dᵀAδ  δᵀAδ] (a, b)ᵀ = (rhsᵀd, rhsᵀδ)

    (Martens & Grosse 2015, section 7). On a quadratic with lr = 1 the updates are those of
    conjugate gradients, so lr = 1 is the natural choice. It costs the product G δ; dᵀAd comes from
    the φ of the solver. A block without δ (first update, rejected step, lr of 0), and one whose d
    and δ are parallel to rounding or whose matrix is not positive definite on their plane, takes
    the minimiser a d along d alone; where dᵀAd ≤ 0 or nothing is finite, d itself. Every iterate
    that the solver kept is combined in the same way, so that backtracking compares minimisers. A
    warm start remains the solver's own direction; without one, the update takes a product less.
    """

    @property
    def products(self) -> int:
        """G δ."""
        return 1

    def combine(self, system: System, solution: Solution, last: Tensor | None) -> Solution:
        """Combine every iterate with δ; the blocks where δ is not 0 count a product."""
        plane = None if last is None else _Plane.of(system, last)
        multiplied = () if plane is None else plane.rows
        iterates = tuple(_minimiser(system, iterate, plane) for iterate in solution.iterates)
        return replace(
            solution,
            products=tuple(n + (row in multiplied) for row, n in enumerate(solution.products)),
            iterates=iterates,
        )


@dataclass(frozen=True)
class _Plane:
    """The last step δ and A δ, (P,), which every iterate uses, and the blocks that have them."""

    step: Tensor
    image: Tensor
    rows: frozenset[int]

    @classmethod
    def of(cls, system: System, last: Tensor) -> _Plane | None:
        """One product, with the blocks where δ is finite and not 0; None if there is no such block.

        δ and A δ are 0 elsewhere. Waits for the device.
        """
        blocks, norms = system.blocks, system.blocks.dot(last, last)
        usable = (norms > 0) & norms.isfinite()
        rows = [row for row, on in enumerate(usable.tolist()) if on]
        if not rows:
            return None
        step, active = last, None
        if len(rows) < len(norms):
            step, active = last.clone(), rows
            blocks.zero_(~usable, step)
        image = blocks.add_scaled_(system.matrix(step, active), system.damping, step)
        return cls(step, image, frozenset(rows))


def _minimiser(system: System, iterate: Iterate, plane: _Plane | None) -> Iterate:
    """The minimiser of φ over the span of an iterate d and δ, with its φ."""
    d, dtype, blocks = iterate.x, iterate.model.dtype, system.blocks
    slope = blocks.dot(system.rhs, d, dtype)
    curvature = 2 * (iterate.model + slope)  # dᵀA d
    along = slope.new_zeros(3, len(slope))  # dᵀAδ, δᵀAδ, rhsᵀδ
    if plane is not None:
        pairs = ((d, plane.image), (plane.step, plane.image), (system.rhs, plane.step))
        along = torch.stack([blocks.dot(u, v, dtype) for u, v in pairs])
    a, b = coefficients(curvature, slope, along, torch.finfo(d.dtype).eps)
    mixed, other, fall = torch.where(b == 0, 0.0, along)  # since 0 · NaN is NaN
    x = blocks.add_scaled_(torch.zeros_like(d), a, d)
    if plane is not None:
        blocks.add_scaled_(x, b, plane.step)
    quadratic = 0.5 * (a * a * curvature + b * b * other) + a * b * mixed
    return Iterate(x, quadratic - a * slope - b * fall)


def coefficients(
    curvature: Tensor, slope: Tensor, along: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Give a and b of every block, (rows,), from dᵀAd, rhsᵀd and (dᵀAδ, δᵀAδ, rhsᵀδ), (3, rows).

    b = 0 where δ cannot be used, then a = rhsᵀd / dᵀAd; a = 1 where that is no minimum. Solved in
    unit vectors of A's norm, so that the determinant is relative; `eps` is the rounding unit.
    """
    mixed, other, fall = along
    length, width = curvature.sqrt(), other.sqrt()  # NaN below 0
    cosine = mixed / (length * width)
    determinant = (1 - cosine) * (1 + cosine)
    u, v = slope / length, fall / width
    a, b = (u - cosine * v) / determinant / length, (v - cosine * u) / determinant / width
    alone, convex = slope / curvature, (curvature > 0) & curvature.isfinite()
    solved = convex & (determinant > FLATTEST * eps) & a.isfinite() & b.isfinite()
    alone = torch.where(convex & alone.isfinite(), alone, 1.0)
    return torch.where(solved, a, alone), torch.where(solved, b, 0.0)

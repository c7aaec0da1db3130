"""Conjugate gradients on all blocks in lockstep: A x = rhs in every row, with A = G + λI.

    α = rᵀr / pᵀAp,   x += α p,   r -= α A p,   β = rᵀr / (rᵀr)_old,   p = r + β p
    φ = ½ xᵀA x - rhsᵀx  falls by  ½ α rᵀr : no second product tells how far a row has come

Every scalar is a vector with one entry per row (block). A row that is done rests: its r and p are
zero, no product is spent on it, and nothing that happens in it reaches another row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.solvers.system import Solution, Stop, System

#: Iterations after which the recurrence of r gives way to the true residual (rounding drift).
REFRESH_EVERY = 50

_STOPS = tuple(Stop)
_CODE = {stop: code for code, stop in enumerate(_STOPS)}


@dataclass(frozen=True)
class CG:
    """Truncated conjugate gradients (Hestenes & Stiefel 1952; Martens 2010, §4).

    A block stops when it is `converged` (‖r‖ ≤ residual_tol · ‖rhs‖, and never below the rounding
    unit), at Martens' relative `progress` ((φ_i - φ_{i-k}) / φ_i < k · tol with
    k = max(10, ⌈0.1 i⌉), i > k, φ_i < 0; tol = 0 turns it off), or at `max_iters`. The next solve
    starts at `warm_start` times the last solution (ζ of Zhang et al. 2017), with a first residual
    that includes the damping. Raises ValueError for a setting out of range.
    """

    max_iters: int = 30
    tol: float = 5e-4
    residual_tol: float = 0.0
    warm_start: float = 0.95

    def __post_init__(self) -> None:
        if self.max_iters < 1:
            raise ValueError(f"CG max_iters must be at least 1; got {self.max_iters}")
        for name in ("tol", "residual_tol", "warm_start"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"CG {name} must be finite and at least 0; got {value}")

    def solve(self, system: System, start: Tensor | None = None) -> Solution:
        """Solve every block from `start`, (P,) in block order, or from zero."""
        rows = _Rows(system, start)
        self._stop_small(rows)
        models = [rows.model]
        for iteration in range(1, self.max_iters + 1):
            if not rows.active.any():
                break
            rows.descend(first=iteration == 1 and start is None)
            if iteration % REFRESH_EVERY == 0 and iteration < self.max_iters:
                rows.refresh()
            models.append(rows.model)
            rows.measure()
            self._stop_small(rows)
            self._stop_progress(rows, models, iteration)
            rows.turn()
        rows.rest(rows.active, Stop.MAX_ITERS)
        return rows.solution()

    def _stop_small(self, rows: _Rows) -> None:
        """Rest the rows whose residual is small enough, or no longer a number."""
        floor = max(self.residual_tol, torch.finfo(rows.r.dtype).eps)
        rows.rest(~rows.rr.isfinite(), Stop.NONFINITE)
        rows.rest(rows.rr <= floor**2 * rows.bb, Stop.CONVERGED)

    def _stop_progress(self, rows: _Rows, models: list[Tensor], iteration: int) -> None:
        """Rest the rows whose φ has come to a stand (Martens 2010, §4.4)."""
        span = max(10, math.ceil(0.1 * iteration))
        if iteration <= span or self.tol == 0:
            return
        now = rows.model
        progress = (now - models[iteration - span]) / now
        rows.rest((now < 0) & (progress < span * self.tol), Stop.PROGRESS)


class _Rows:
    """The state of all rows: vectors (P,) in block order, scalars (rows,)."""

    def __init__(self, system: System, start: Tensor | None) -> None:
        self.system, self.dot = system, system.blocks.dot
        rhs = system.rhs
        self.bb = self.dot(rhs, rhs)
        self.active = torch.ones_like(self.bb, dtype=torch.bool)
        self.code = torch.full_like(self.bb, _CODE[Stop.MAX_ITERS], dtype=torch.long)
        self.iterations = torch.zeros_like(self.code)
        self.products = torch.zeros_like(self.code)
        self.x = torch.zeros_like(rhs) if start is None else start.clone()
        self.r = rhs.clone() if start is None else rhs - self._apply(self.x)
        self.rr = self.last_rr = self.dot(self.r, self.r)
        system.blocks.zero_(~self.rr.isfinite(), self.x)  # no step that starts from a NaN
        self.model = -0.5 * self.dot(self.x, rhs + self.r)  # φ
        self.p = self.r.clone()

    def _apply(self, v: Tensor) -> Tensor:
        """A v on the active rows, zero elsewhere; counted."""
        active = None if self.active.all() else self.active.nonzero().reshape(-1).tolist()
        product = self.system.product(v, active)
        self.products += self.active
        damping = torch.where(self.active, self.system.damping, 0.0)
        return self.system.blocks.add_scaled_(product, damping, v)

    def descend(self, first: bool) -> None:
        """Go down along p, to the minimum of φ."""
        ap = self._apply(self.p)
        curvature = self.dot(self.p, ap)
        length = self.rr / curvature
        negative = self.active & curvature.isfinite() & (curvature <= 0)
        if first and negative.any():
            self._leave_saddle(curvature, negative)
        self.rest(negative, Stop.NEGATIVE_CURVATURE, ap)
        self.rest(~(curvature.isfinite() & length.isfinite()), Stop.NONFINITE, ap)
        alpha = torch.where(self.active, length, 0.0)
        self.system.blocks.add_scaled_(self.x, alpha, self.p)
        self.system.blocks.add_scaled_(self.r, -alpha, ap)
        self.model = self.model - 0.5 * alpha * torch.where(self.active, self.rr, 0.0)
        self.iterations += self.active

    def _leave_saddle(self, curvature: Tensor, negative: Tensor) -> None:
        """Without any iterate to keep, x = p / (|pᵀAp| / pᵀp + λ); nowhere if both are 0."""
        length = 1.0 / (curvature.abs() / self.rr + self.system.damping)
        length = torch.where(negative & length.isfinite(), length, 0.0)
        self.system.blocks.add_scaled_(self.x, length, self.p)
        change = 0.5 * length**2 * curvature - length * self.rr
        self.model = torch.where(negative, change, self.model)
        self.iterations += negative

    def refresh(self) -> None:
        """Replace the residual of the recurrence by the true one, at the cost of a product."""
        self.r = self.system.rhs - self._apply(self.x)
        self.system.blocks.zero_(~self.active, self.r)

    def measure(self) -> None:
        """Take the norm of the residuals."""
        self.last_rr, self.rr = self.rr, self.dot(self.r, self.r)

    def turn(self) -> None:
        """Make the next direction conjugate to the last."""
        beta = torch.where(self.active, self.rr / self.last_rr, 0.0)
        self.system.blocks.scale_add_(self.p, beta, self.r)

    def rest(self, mask: Tensor, stop: Stop, *vectors: Tensor) -> None:
        """Freeze the active rows in `mask`: nothing touches their x again."""
        mask = mask & self.active
        if mask.any():
            self.active = self.active & ~mask
            self.code = torch.where(mask, _CODE[stop], self.code)
            self.system.blocks.zero_(mask, self.r, self.p, *vectors)

    def solution(self) -> Solution:
        """Name what happened in every row."""
        return Solution(
            x=self.x,
            model=self.model,
            iterations=tuple(self.iterations.tolist()),
            products=tuple(self.products.tolist()),
            stop=tuple(_STOPS[code] for code in self.code.tolist()),
        )

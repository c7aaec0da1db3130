"""Conjugate gradients on all blocks in lockstep: A x = rhs in every row, with A = G + λI.

    y = M⁻¹r,   α = rᵀy / pᵀAp,   x += α p,   r -= α A p,   β = rᵀy / (rᵀy)_old,   p = y + β p
    φ = ½ xᵀA x - rhsᵀx  falls by  ½ α rᵀy : no second product tells how far a row has come

Every scalar is a vector with one entry per row (block). A row that is done rests: its r and p are
zero, no product is spent on it, and nothing that happens in it reaches another row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.cost import Sweeps
from bdhf.optim.curvature import Curvature
from bdhf.optim.layout import Blocks
from bdhf.optim.solvers.preconditioners import NoPreconditioner, Preconditioner
from bdhf.optim.solvers.system import Iterate, Solution, Stop, System, escape_length

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
    preconditioner: Preconditioner = NoPreconditioner()  # noqa: RUF009 - frozen, so shared safely

    def __post_init__(self) -> None:
        if self.max_iters < 1:
            raise ValueError(f"CG max_iters must be at least 1; got {self.max_iters}")
        for name in ("tol", "residual_tol", "warm_start"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"CG {name} must be finite and at least 0; got {value}")

    def check(self, blocks: Blocks, curvature: Curvature) -> None:
        """Take any blocks and any symmetric matrix."""

    def products(self, blocks: object) -> int:
        """All iterations, the first residual, and those that are taken anew."""
        return self.max_iters + 1 + self.max_iters // REFRESH_EVERY

    def cost(self, sweeps: Sweeps, samples: float) -> float:
        """All products, and the preconditioner."""
        apart = 0.0 if isinstance(self.preconditioner, NoPreconditioner) else 2.0
        return self.products(None) * sweeps.product + apart

    def solve(self, system: System, start: Tensor | None = None) -> Solution:
        """Solve every block from `start`, (P,) in block order, or from zero."""
        rows = _Rows(system, start, self.preconditioner(system))
        self._stop_small(rows)
        models, iterates = [rows.model], []
        for iteration in range(1, self.max_iters + 1):
            if not rows.active.any():
                break
            rows.descend(first=iteration == 1)
            if iteration % REFRESH_EVERY == 0 and iteration < self.max_iters:
                rows.refresh()
            models.append(rows.model)
            rows.measure()
            self._stop_small(rows)
            self._stop_progress(rows, models, iteration)
            rows.turn()
            goes_on = iteration < self.max_iters and bool(rows.active.any())
            if system.keep_iterates and goes_on and iteration in _saved(self.max_iters):
                iterates.append(rows.iterate())
        rows.rest(rows.active, Stop.MAX_ITERS)
        return rows.solution(iterates)

    def _stop_small(self, rows: _Rows) -> None:
        """Rest the rows whose residual is small enough, or no longer a number."""
        floor = max(self.residual_tol, torch.finfo(rows.r.dtype).eps)
        rows.rest(~(rows.rr.isfinite() & rows.ry.isfinite()), Stop.NONFINITE)
        rows.rest(rows.rr <= floor**2 * rows.bb, Stop.CONVERGED)

    def _stop_progress(self, rows: _Rows, models: list[Tensor], iteration: int) -> None:
        """Rest the rows whose φ has come to a stand (Martens 2010, §4.4)."""
        span = max(10, math.ceil(0.1 * iteration))
        if iteration <= span or self.tol == 0:
            return
        now = rows.model
        progress = (now - models[iteration - span]) / now
        rows.rest((now < 0) & (progress < span * self.tol), Stop.PROGRESS)


def _saved(max_iters: int) -> set[int]:
    """Iterations at which Martens (2010, §4.6) keeps an iterate: ⌈5 · 1.3^j⌉."""
    last = math.ceil(math.log(max(max_iters, 5) / 5, 1.3))
    return {math.ceil(5 * 1.3**j) for j in range(last + 1)}


class _Rows:
    """The state of all rows: vectors (P,) in block order, scalars (rows,)."""

    def __init__(self, system: System, start: Tensor | None, diagonal: Tensor | None) -> None:
        self.system, self.dot, self.m = system, system.blocks.dot, diagonal
        rhs = system.rhs
        self.bb = self.dot(rhs, rhs)
        self.active = torch.ones_like(self.bb, dtype=torch.bool)
        self.code = torch.full_like(self.bb, _CODE[Stop.MAX_ITERS], dtype=torch.long)
        self.iterations = torch.zeros_like(self.code)
        self.products = torch.zeros_like(self.code)
        self.x = torch.zeros_like(rhs) if start is None else start.clone()
        self.r = rhs.clone() if start is None else rhs - self._apply(self.x)
        self._measure()
        self.last_ry = self.ry
        system.blocks.zero_(~self.rr.isfinite(), self.x)  # no step that starts from a NaN
        model = -0.5 * self.dot(self.x, rhs + self.r)  # φ
        self.model = torch.where(self.rr.isfinite(), model, 0.0)
        self.p = self.y.clone()

    def _apply(self, v: Tensor) -> Tensor:
        """A v on the active rows, zero elsewhere; counted."""
        active = None if self.active.all() else self.active.nonzero().reshape(-1).tolist()
        product = self.system.matrix(v, active)
        self.products += self.active
        damping = torch.where(self.active, self.system.damping, 0.0)
        return self.system.blocks.add_scaled_(product, damping, v)

    def _measure(self) -> None:
        """Take y = M⁻¹r and the norms of the residuals."""
        self.rr = self.dot(self.r, self.r)
        self.y = self.r if self.m is None else self.r / self.m
        self.ry = self.rr if self.m is None else self.dot(self.r, self.y)

    def descend(self, first: bool) -> None:
        """Go down along p, to the minimum of φ."""
        ap = self._apply(self.p)
        curvature = self.dot(self.p, ap)
        length = self.ry / curvature
        negative = self.active & curvature.isfinite() & (curvature <= 0)
        if first and negative.any():
            self._leave_saddle(curvature, negative)
        self.rest(negative, Stop.NEGATIVE_CURVATURE, ap)
        self.rest(~(curvature.isfinite() & length.isfinite()), Stop.NONFINITE, ap)
        alpha = torch.where(self.active, length, 0.0)
        self.system.blocks.add_scaled_(self.x, alpha, self.p)
        self.system.blocks.add_scaled_(self.r, -alpha, ap)
        self.model = self.model - 0.5 * alpha * torch.where(self.active, self.ry, 0.0)
        self.iterations += self.active

    def _leave_saddle(self, curvature: Tensor, negative: Tensor) -> None:
        """Negative curvature in the first direction.

        A row that began at zero has no iterate to keep: x = p / (|pᵀAp| / pᵀp + λ), nowhere if
        both are 0. One that began warm keeps its start, unless that lies above zero: then it
        moves nothing, and begins cold the next time.
        """
        cold = negative & (self.dot(self.x, self.x) == 0)
        length = escape_length(curvature, self.dot(self.p, self.p), self.system.damping)
        length = torch.where(cold, length, 0.0)
        self.system.blocks.add_scaled_(self.x, length, self.p)
        change = 0.5 * length**2 * curvature - length * self.ry
        self.model = torch.where(cold, change, self.model)
        self.iterations += cold
        above = negative & ~cold & ~(self.model < 0)
        self.system.blocks.zero_(above, self.x)
        self.model = torch.where(above, 0.0, self.model)

    def refresh(self) -> None:
        """Replace the residual of the recurrence by the true one, at the cost of a product."""
        self.r = self.system.rhs - self._apply(self.x)
        self.system.blocks.zero_(~self.active, self.r)

    def measure(self) -> None:
        """Take the norms of the residuals, and remember the last."""
        self.last_ry = self.ry
        self._measure()

    def turn(self) -> None:
        """Make the next direction conjugate to the last."""
        beta = torch.where(self.active, self.ry / self.last_ry, 0.0)
        self.system.blocks.scale_add_(self.p, beta, self.y)

    def rest(self, mask: Tensor, stop: Stop, *vectors: Tensor) -> None:
        """Freeze the active rows in `mask`: nothing touches their x again."""
        mask = mask & self.active
        if mask.any():
            self.active = self.active & ~mask
            self.code = torch.where(mask, _CODE[stop], self.code)
            self.system.blocks.zero_(mask, self.r, self.y, self.p, *vectors)

    def iterate(self) -> Iterate:
        """Keep where all rows are now."""
        return Iterate(self.x.clone(), self.model)

    def solution(self, iterates: list[Iterate]) -> Solution:
        """Name what happened in every row."""
        return Solution(
            x=self.x,
            model=self.model,
            iterations=tuple(self.iterations.tolist()),
            products=tuple(self.products.tolist()),
            stop=tuple(_STOPS[code] for code in self.code.tolist()),
            iterates=(*iterates, Iterate(self.x, self.model)),
        )

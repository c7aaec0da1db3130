"""Preconditioned conjugate gradients on all blocks at once: A x = b in every row, A = G + λI.

    p = z + β p,     β = rᵀz / (rᵀz)_old
    x = x + α p,     α = rᵀz / pᵀA p
    r = r - α A p
    z = M⁻¹ r

Vectors are (P,) in block order; α, β and inner products have one entry per row, on the device of
the vectors. φ(x) = ½ xᵀA x - bᵀx changes by ½ α² pᵀA p - α rᵀz, so it takes no second product.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from bdhf.optim.solvers.lockstep import Rows
from bdhf.optim.solvers.preconditioners import Inverse, LastingInverse
from bdhf.optim.solvers.system import Stop, System, escape_length

#: Rounding errors of a step along M⁻¹ r, in units of the precision.
SOLVED_WITHIN = 1000.0


class Recurrence:
    """The iterate x of every row, its residual r and its direction p; `rows` has the active ones.

    Vectors are b, x, r, p and A p, and with a preconditioner z, and M if diagonal. Scalars are in
    `dtype`. In a stopped row p is zero, so that x stays and its product is zero; its other numbers
    are meaningless and unused.
    """

    def __init__(
        self,
        system: System,
        start: Tensor | None,
        preconditioner: Tensor | Inverse | None,
        dtype: torch.dtype,
        eager: bool,
    ) -> None:
        self.system, self.m, blocks = system, preconditioner, system.blocks
        self._add_, self._turn_ = blocks.add_scaled_, blocks.scale_add_
        self._dot = partial(blocks.dot, dtype=dtype)
        self._add_dot_ = partial(blocks.add_scaled_dot_, dtype=dtype)
        self.bb = self.rr = self._dot(system.rhs, system.rhs)
        self.rows = Rows(self.bb, eager)
        self._lasting = preconditioner if isinstance(preconditioner, LastingInverse) else None
        if self._lasting is not None:
            self.rows.products += torch.tensor(self._lasting.products, device=self.bb.device)
        self.phi = torch.zeros_like(self.bb)
        self.x = torch.zeros_like(system.rhs) if start is None else start
        self.r, self.p = system.rhs.clone(), torch.zeros_like(system.rhs)
        if start is not None:
            self.refresh()
        self.z = self.r if preconditioner is None else torch.empty_like(self.r)
        self.precondition()
        self._first_rz = self._last_rz = self.rz  # with p = 0, so that the first direction is z
        if start is not None:
            self._begin_warm()

    def step(self, first: bool) -> None:
        """Step along the next direction to the minimum of φ, in every active row."""
        beta = (self.rz / self._last_rz).masked_fill(~self.rows.active, 0.0)
        self._turn_(self.p, beta, self.z)  # p = z + β p
        self._still(~self.rows.active)
        ap = self._product(self.p)
        pap = self._add_dot_(ap, self.system.damping, self.p, self.p)  # A p = G p + λ p, and pᵀA p
        if self._lasting is not None:
            self._lasting.see(self.p, ap)
        alpha, moved = self._length(pap, first)
        self._add_(self.x, alpha, self.p)  # x = x + α p
        self.rr = self._add_dot_(self.r, -alpha, ap, self.r)  # r = r - α A p, and rᵀr
        change = alpha * (0.5 * alpha * pap - self.rz)
        self.phi = torch.where(moved, self.phi + change, self.phi)
        self._last_rz = self.rz
        self.rows.iterations += moved

    def precondition(self) -> None:
        """Compute z = M⁻¹ r, and rᵀz; rᵀr is computed with r."""
        if self.m is None:
            self.rz = self.rr
            return
        if isinstance(self.m, Tensor):
            torch.div(self.r, self.m, out=self.z)
        else:
            self.z = self.m(self.r)
        self.rz = self._dot(self.r, self.z)

    @property
    def solved(self) -> Tensor:
        """Rows whose M was A, so that after the first step r is rounding, (rows,).

        Further steps would divide rounding by rounding. Never with a diagonal M, or none.
        """
        if self.m is None or isinstance(self.m, Tensor):
            return torch.zeros_like(self.rows.active)
        rounding = SOLVED_WITHIN * torch.finfo(self.r.dtype).eps
        return self.rz <= rounding**2 * self._first_rz

    def memory(self, iterations: int) -> Tensor | None:
        """What the preconditioner leaves to the next solve, (k, P); None: nothing new."""
        return None if self._lasting is None else self._lasting.memory(iterations)

    def refresh(self) -> None:
        """Compute r = b - A x, since the recurrence drifts, at the cost of a product."""
        ax = self._add_(self._product(self.x), self.system.damping, self.x)
        torch.sub(self.system.rhs, ax, out=self.r)
        self.rr = self._dot(self.r, self.r)

    def _product(self, v: Tensor) -> Tensor:
        """G v, counted for the active rows; undefined in stopped ones."""
        product = self.system.matrix(v, self.rows.listed)
        self.rows.products += self.rows.active
        return product

    def _length(self, pap: Tensor, first: bool) -> tuple[Tensor, Tensor]:
        """α, 0 in a row that does not move, and which rows move; the others stop."""
        alpha = self.rz / pap
        finite = pap.isfinite()
        negative = self.rows.active & finite & (pap <= 0)
        self.rows.rest(negative, Stop.NEGATIVE_CURVATURE)
        self.rows.rest(~(finite & alpha.isfinite()), Stop.NONFINITE)
        moved = self.rows.active
        if first and self.rows.any(negative):
            cold, escape = self._leave_saddle(pap, negative)
            moved, alpha = moved | cold, torch.where(cold, escape, alpha)
        self._still(~finite)
        return alpha.masked_fill(~moved, 0.0), moved

    def _leave_saddle(self, pap: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Negative curvature in the first direction: which rows move anyway, and how far.

        A row that started at zero has no iterate to keep: x = p / (|pᵀA p| / pᵀp + λ), 0 if both
        are 0. A row with a warm start keeps it, unless its φ is above zero: then it does not move,
        and starts cold the next time.
        """
        cold = negative & (self._dot(self.x, self.x) == 0)
        above = negative & ~cold & ~(self.phi < 0)
        self.system.blocks.zero_(above, self.x)
        self.phi = self.phi.masked_fill(above, 0.0)
        return cold, escape_length(pap, self._dot(self.p, self.p), self.system.damping)

    def _begin_warm(self) -> None:
        """Compute φ of the start; no row starts from a NaN."""
        lost = ~self.rr.isfinite()
        self.system.blocks.zero_(lost, self.x)
        phi = -0.5 * (self._dot(self.x, self.system.rhs) + self._dot(self.x, self.r))
        self.phi = phi.masked_fill(lost, 0.0)

    def _still(self, mask: Tensor) -> None:
        """Set p to zero in the rows of `mask`: 0 · p is NaN where p is not finite."""
        if self.rows.any(mask):
            self.system.blocks.zero_(mask, self.p)

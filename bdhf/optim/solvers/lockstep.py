"""The state of a lockstep solve by conjugate gradients, and the steps that all rows take at once.

    φ = ½ xᵀA x - rhsᵀx  changes by  ½ α² pᵀAp - α rᵀy : no second product tells how far a row is

Every scalar is a vector with one entry per row (block), and stays where the vectors are: nothing
but `look` and `solution` waits for the device. In a row that is at rest p is zero, so its x stays
and its product is zero; its other numbers mean nothing, and nothing takes them up.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from bdhf.optim.solvers.system import Iterate, Solution, Stop, System, escape_length

_STOPS = tuple(Stop)
_CODE = {stop: code for code, stop in enumerate(_STOPS)}


class Rows:
    """The state of all rows: vectors (P,) in block order, scalars (rows,) in `dtype`.

    Beside rhs there are x, r, p and A p, and with a preconditioner its diagonal and y. `eager`
    says that a flag costs nothing to read, so that work on no row may be left out.
    """

    def __init__(
        self,
        system: System,
        start: Tensor | None,
        diagonal: Tensor | None,
        dtype: torch.dtype,
        eager: bool,
    ) -> None:
        self.system, self.m, self.eager = system, diagonal, eager
        self.dot = partial(system.blocks.dot, dtype=dtype)
        self.add_dot_ = partial(system.blocks.add_scaled_dot_, dtype=dtype)
        self.bb = self.rr = self.dot(system.rhs, system.rhs)
        self.active = torch.ones_like(self.bb, dtype=torch.bool)
        self.listed: list[int] | None = None  # the active rows at the last look; None: all
        self.code = torch.full_like(self.bb, _CODE[Stop.MAX_ITERS], dtype=torch.long)
        self.iterations = torch.zeros_like(self.code)
        self.products = torch.zeros_like(self.code)
        self.model = torch.zeros_like(self.bb)  # φ
        self.x = torch.zeros_like(system.rhs) if start is None else start
        self.r, self.p = system.rhs.clone(), torch.zeros_like(system.rhs)
        if start is not None:
            self.refresh()
        self.y = self.r if diagonal is None else torch.empty_like(self.r)
        self._precondition()
        self.last_ry = self.ry
        if start is not None:
            self._begin_warm()

    def _begin_warm(self) -> None:
        """Take φ of the start; no row starts from a NaN."""
        lost = ~self.rr.isfinite()
        self.system.blocks.zero_(lost, self.x)
        model = -0.5 * (self.dot(self.x, self.system.rhs) + self.dot(self.x, self.r))
        self.model = model.masked_fill(lost, 0.0)

    def look(self) -> bool:
        """Ask which rows are active, and whether there is any: the only wait for the device."""
        flags = self.active.tolist()
        self.listed = None if all(flags) else [row for row, on in enumerate(flags) if on]
        return any(flags)

    def _apply(self, v: Tensor) -> Tensor:
        """G v, counted on the active rows; on those at rest it may be anything."""
        product = self.system.matrix(v, self.listed)
        self.products += self.active
        return product

    def _precondition(self) -> None:
        """Take y = M⁻¹r and rᵀy; rᵀr comes with r."""
        self.ry = self.rr
        if self.m is not None:
            torch.div(self.r, self.m, out=self.y)
            self.ry = self.dot(self.r, self.y)

    def turn(self) -> None:
        """Make the next direction conjugate to the last; the first is y, for p is still 0."""
        beta = (self.ry / self.last_ry).masked_fill(~self.active, 0.0)
        self.system.blocks.scale_add_(self.p, beta, self.y)
        self._still(~self.active)

    def descend(self, first: bool) -> None:
        """Go down along p, to the minimum of φ."""
        ap = self._apply(self.p)
        curvature = self.add_dot_(ap, self.system.damping, self.p, self.p)
        length = self.ry / curvature
        finite = curvature.isfinite()
        negative = self.active & finite & (curvature <= 0)
        self.rest(negative, Stop.NEGATIVE_CURVATURE)
        self.rest(~(finite & length.isfinite()), Stop.NONFINITE)
        moved = self.active
        if first and self._any(negative):
            cold, escape = self._leave_saddle(curvature, negative)
            moved, length = moved | cold, torch.where(cold, escape, length)
        self._still(~finite)
        alpha = length.masked_fill(~moved, 0.0)
        self.system.blocks.add_scaled_(self.x, alpha, self.p)
        self.rr = self.add_dot_(self.r, -alpha, ap, self.r)
        change = alpha * (0.5 * alpha * curvature - self.ry)
        self.model = torch.where(moved, self.model + change, self.model)
        self.iterations += moved

    def _leave_saddle(self, curvature: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Negative curvature in the first direction: which rows move all the same, and how far.

        A row that began at zero has no iterate to keep: x = p / (|pᵀAp| / pᵀp + λ), nowhere if
        both are 0. One that began warm keeps its start, unless that lies above zero: then it
        moves nothing, and begins cold the next time.
        """
        cold = negative & (self.dot(self.x, self.x) == 0)
        above = negative & ~cold & ~(self.model < 0)
        self.system.blocks.zero_(above, self.x)
        self.model = self.model.masked_fill(above, 0.0)
        return cold, escape_length(curvature, self.dot(self.p, self.p), self.system.damping)

    def refresh(self) -> None:
        """Take the true residual in place of that of the recurrence, at the cost of a product."""
        ax = self.system.blocks.add_scaled_(self._apply(self.x), self.system.damping, self.x)
        torch.sub(self.system.rhs, ax, out=self.r)
        self.rr = self.dot(self.r, self.r)

    def measure(self) -> None:
        """Take the norms of the residual, and remember the last."""
        self.last_ry = self.ry
        self._precondition()

    def rest(self, mask: Tensor, stop: Stop) -> None:
        """Freeze the active rows in `mask`: nothing touches their x again."""
        mask = mask & self.active
        self.active = self.active & ~mask
        self.code = self.code.masked_fill(mask, _CODE[stop])

    def _still(self, mask: Tensor) -> None:
        """Let p be zero in the rows of `mask`: 0 · p would not do, where p is not finite."""
        if self._any(mask):
            self.system.blocks.zero_(mask, self.p)

    def _any(self, mask: Tensor) -> bool:
        """Whether work on the rows of `mask` is due; where a flag is not free to read, it is."""
        return not self.eager or bool(mask.any())

    def iterate(self) -> Iterate:
        """Keep where all rows are now."""
        return Iterate(self.x.clone(), self.model)

    def solution(self, kept: list[tuple[int, Iterate]]) -> Solution:
        """Name what happened in every row; an iterate after which no row moved is the answer."""
        counts = torch.stack([self.iterations, self.products, self.code])
        iterations, products, codes = counts.tolist()
        iterates = [iterate for iteration, iterate in kept if iteration < max(iterations)]
        return Solution(
            x=self.x,
            model=self.model,
            iterations=tuple(iterations),
            products=tuple(products),
            stop=tuple(_STOPS[code] for code in codes),
            iterates=(*iterates, Iterate(self.x, self.model)),
        )

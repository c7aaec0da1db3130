"""Conjugate gradients on all blocks in lockstep: when a row stops, and which iterates are kept.

`recurrence` is the algorithm, `lockstep` records the state of its rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.products.cost import Sweeps
from bdhf.optim.solvers.lockstep import Rows
from bdhf.optim.solvers.preconditioners import FromProducts, NoPreconditioner, Preconditioner
from bdhf.optim.solvers.recurrence import Recurrence
from bdhf.optim.solvers.system import Iterate, Solution, Stop, System
from bdhf.optim.vectors.blocks import Blocks

#: Iterations after which the true residual replaces that of the recurrence (rounding drift).
REFRESH_EVERY = 50

#: Iterations between two reads of which rows are done, where a read waits for the device.
CHECK_EVERY = 10


@dataclass(frozen=True)
class CG:
    """Truncated conjugate gradients (Hestenes & Stiefel 1952; Martens 2010, §4).

    A block stops when it is `converged` (‖r‖ ≤ `residual_tol` · ‖rhs‖, and never below the rounding
    unit), at Martens' relative `progress` ((φ_i - φ_{i-k}) / φ_i < k · `tol` with k = max(10, ⌈0.1
    i⌉), i > k, φ_i < 0; tol = 0 turns it off), or at `max_iters`. The next solve starts at
    `warm_start` times the last solution (ζ of Zhang et al. 2017), with a first residual that
    includes the damping.

    Every `check_every` iterations (None: 1 on the CPU, 10 elsewhere) the solve waits for the device
    to read which blocks are done. The answer, its counts and its reasons do not depend on it: a
    block that is done does not change, and its products until the next read are wasted; only the
    FLOPs of the update include them. `float64_dots` accumulates inner products in float64, and
    computes α, β and φ in it; the precision of vectors and products does not change.

    Raises ValueError for a setting out of range.
    """

    max_iters: int = 30
    tol: float = 5e-4
    residual_tol: float = 0.0
    warm_start: float = 0.95
    preconditioner: Preconditioner = NoPreconditioner()  # noqa: RUF009 - frozen, so shared safely
    check_every: int | None = None
    float64_dots: bool = False

    def __post_init__(self) -> None:
        if self.max_iters < 1:
            raise ValueError(f"CG max_iters must be at least 1; got {self.max_iters}")
        if self.check_every is not None and self.check_every < 1:
            raise ValueError(f"CG check_every must be at least 1, or None; got {self.check_every}")
        for name in ("tol", "residual_tol", "warm_start"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"CG {name} must be finite and at least 0; got {value}")

    def check(self, blocks: Blocks, curvature: Curvature) -> None:
        """Accept any blocks and any symmetric matrix that the preconditioner accepts."""
        if isinstance(self.preconditioner, FromProducts):
            self.preconditioner.check(blocks, curvature)

    def products(self, blocks: Blocks) -> int:
        """All iterations, the first residual and its refreshes, and those of the preconditioner."""
        return self._most_products + self._set_up(max(n for _, n in blocks.shapes))

    def _set_up(self, largest: int) -> int:
        """Products of the preconditioner, for blocks of at most `largest` parameters."""
        part = self.preconditioner
        return part.products(largest) if isinstance(part, FromProducts) else 0

    @property
    def _most_products(self) -> int:
        return self.max_iters + 1 + self.max_iters // REFRESH_EVERY

    def cost(self, sweeps: Sweeps, samples: float) -> float:
        """All products, and the preconditioner."""
        part, gradient = self.preconditioner, sweeps.gradient * samples
        apart = 0.0 if isinstance(part, NoPreconditioner) else 2.0
        if isinstance(part, FromProducts):
            flops = part.flops(sweeps.sizes, self.max_iters)
            apart = flops / gradient if gradient else math.nan
        products = self._most_products + self._set_up(max(sweeps.sizes))
        return products * sweeps.product + apart

    def solve(self, system: System, start: Tensor | None = None) -> Solution:
        """Solve every block from `start`, (P,) in block order, overwriting it, or from zero."""
        on_cpu = system.rhs.device.type == "cpu"
        every = self.check_every or (1 if on_cpu else CHECK_EVERY)
        dtype = torch.float64 if self.float64_dots else system.rhs.dtype
        inverse = self.preconditioner(system)
        cg = Recurrence(system, start, inverse, dtype, eager=on_cpu and every == 1)
        self._stop_small(cg)
        saved = _saved(self.max_iters) if system.keep_iterates else set()
        kept: list[tuple[int, Iterate]] = []
        phis = [cg.phi]
        for iteration in range(1, self.max_iters + 1):
            if (iteration - 1) % every == 0 and not cg.rows.look():
                break
            cg.step(first=iteration == 1)
            if iteration % REFRESH_EVERY == 0 and iteration < self.max_iters:
                cg.refresh()
            cg.precondition()
            phis.append(cg.phi)
            self._stop_small(cg)
            self._stop_progress(cg.rows, phis)
            if iteration in saved:
                kept.append((iteration, Iterate(cg.x.clone(), cg.phi)))
        solution = cg.rows.solution(Iterate(cg.x, cg.phi), kept)
        return replace(solution, memory=cg.memory(max(solution.iterations)))

    def _stop_small(self, cg: Recurrence) -> None:
        """Stop the rows whose residual is small enough, or not finite."""
        floor = max(self.residual_tol, torch.finfo(cg.r.dtype).eps)
        cg.rows.rest(~(cg.rr.isfinite() & cg.rz.isfinite()), Stop.NONFINITE)
        cg.rows.rest(cg.rr <= floor**2 * cg.bb, Stop.CONVERGED)

    def _stop_progress(self, rows: Rows, phis: Sequence[Tensor]) -> None:
        """Stop the rows whose φ hardly changes (Martens 2010, §4.4); `phis` begin at x_0."""
        iteration, phi = len(phis) - 1, phis[-1]
        span = max(10, math.ceil(0.1 * iteration))
        if iteration <= span or self.tol == 0:
            return
        progress = (phi - phis[iteration - span]) / phi
        rows.rest((phi < 0) & (progress < span * self.tol), Stop.PROGRESS)


def _saved(max_iters: int) -> set[int]:
    """Iterations before the last at which Martens (2010, §4.6) keeps an iterate: ⌈5 · 1.3^j⌉."""
    last = math.ceil(math.log(max(max_iters, 5) / 5, 1.3))
    return {math.ceil(5 * 1.3**j) for j in range(last + 1)} & set(range(max_iters))

"""Conjugate gradients on all blocks in lockstep: when a row stops, and which iterates are kept.

`recurrence` is the algorithm, `lockstep` records the state of its rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.products.cost import Sweeps
from bdhf.optim.solvers.lockstep import CHECK_EVERY, Rows, saved_iterations
from bdhf.optim.solvers.preconditioners import NoPreconditioner, Preconditioner
from bdhf.optim.solvers.recurrence import Recurrence
from bdhf.optim.solvers.system import Iterate, Solution, Stop, System
from bdhf.optim.vectors.blocks import Blocks

#: Iterations after which the true residual replaces that of the recurrence (rounding drift).
REFRESH_EVERY = 50


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
        """Accept any blocks and any symmetric matrix."""

    def products(self, blocks: Blocks) -> int:
        """All iterations, the first residual, and its refreshes."""
        return self._most_products

    @property
    def _most_products(self) -> int:
        return self.max_iters + 1 + self.max_iters // REFRESH_EVERY

    def cost(self, sweeps: Sweeps, samples: float) -> float:
        """All products, and the preconditioner."""
        apart = 0.0 if isinstance(self.preconditioner, NoPreconditioner) else 2.0
        return self._most_products * sweeps.product + apart

    def solve(self, system: System, start: Tensor | None = None) -> Solution:
        """Solve every block from `start`, (P,) in block order, overwriting it, or from zero."""
        on_cpu = system.rhs.device.type == "cpu"
        every = self.check_every or (1 if on_cpu else CHECK_EVERY)
        dtype = torch.float64 if self.float64_dots else system.rhs.dtype
        diagonal = self.preconditioner(system)
        cg = Recurrence(system, start, diagonal, dtype, eager=on_cpu and every == 1)
        self._stop_small(cg)
        saved = saved_iterations(self.max_iters) if system.keep_iterates else set()
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
        return cg.rows.solution(Iterate(cg.x, cg.phi), kept)

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

"""Conjugate gradients on all blocks in lockstep: when a row stops, and which iterates are kept.

`recurrence` is the algorithm, `lockstep` records the state of its rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.products.cost import Sweeps
from bdhf.optim.refusals.refusals import refuse_no_parts
from bdhf.optim.solvers.lockstep import CHECK_EVERY, saved_iterations
from bdhf.optim.solvers.preconditioners import (
    FromProducts,
    NoPreconditioner,
    Preconditioner,
    cost_of,
)
from bdhf.optim.solvers.recurrence import Recurrence
from bdhf.optim.solvers.stopping import History, MartensProgress, StopRule
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

    A rule as `stop` (`RelativeResidual`, `Forcing`, `MartensProgress`) replaces `tol` and
    `residual_tol`; None: these two.

    Raises ValueError for a setting out of range, and for a rule beside a `tol` or `residual_tol`.
    """

    max_iters: int = 30
    tol: float = 5e-4
    residual_tol: float = 0.0
    warm_start: float = 0.95
    preconditioner: Preconditioner = NoPreconditioner()  # noqa: RUF009 - frozen, so shared safely
    check_every: int | None = None
    float64_dots: bool = False
    stop: StopRule | None = None

    def __post_init__(self) -> None:
        if self.max_iters < 1:
            raise ValueError(f"CG max_iters must be at least 1; got {self.max_iters}")
        if self.check_every is not None and self.check_every < 1:
            raise ValueError(f"CG check_every must be at least 1, or None; got {self.check_every}")
        for name in ("tol", "residual_tol", "warm_start"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"CG {name} must be finite and at least 0; got {value}")
        if self.stop is not None:
            self._refuse_two_rules()

    def _refuse_two_rules(self) -> None:
        refuse_no_parts(stop=self.stop)
        for name in ("tol", "residual_tol"):
            if getattr(self, name) != getattr(CG, name):
                raise ValueError(
                    f"CG stop replaces {name}; got both: leave out {name}, or give it as "
                    "MartensProgress(tol) or RelativeResidual(tol)"
                )

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
        products = self._most_products + self._set_up(max(sweeps.sizes))
        apart = cost_of(self.preconditioner, sweeps, samples, self.max_iters + 1)
        return products * sweeps.product + apart

    def solve(self, system: System, start: Tensor | None = None) -> Solution:
        """Solve every block from `start`, (P,) in block order, overwriting it, or from zero."""
        on_cpu = system.rhs.device.type == "cpu"
        every = self.check_every or (1 if on_cpu else CHECK_EVERY)
        dtype = torch.float64 if self.float64_dots else system.rhs.dtype
        inverse = self.preconditioner(system)
        cg = Recurrence(system, start, inverse, dtype, eager=on_cpu and every == 1)
        rule, phis = self.stop or MartensProgress(self.tol), [cg.phi]
        numbers = rule.begin(History(phis, cg.rr, cg.bb), system.stopping)
        self._stop(cg, rule, phis, numbers)
        saved = saved_iterations(self.max_iters) if system.keep_iterates else set()
        kept: list[tuple[int, Iterate]] = []
        for iteration in range(1, self.max_iters + 1):
            if (iteration - 1) % every == 0 and not cg.rows.look():
                break
            cg.step(first=iteration == 1)
            if iteration % REFRESH_EVERY == 0 and iteration < self.max_iters:
                cg.refresh()
            cg.precondition()
            if iteration == 1:
                cg.rows.rest(cg.solved, Stop.CONVERGED)
            phis.append(cg.phi)
            self._stop(cg, rule, phis, numbers)
            if iteration in saved:
                kept.append((iteration, Iterate(cg.x.clone(), cg.phi)))
        solution = cg.rows.solution(Iterate(cg.x, cg.phi), kept)
        memory = cg.memory(max(solution.iterations))
        return replace(solution, stopping=numbers, memory=memory)

    def _stop(
        self, cg: Recurrence, rule: StopRule, phis: list[Tensor], numbers: Tensor | None
    ) -> None:
        """Stop the rows that are not finite or exact to rounding, and those that the rule stops."""
        floor = max(self.residual_tol, torch.finfo(cg.r.dtype).eps)
        cg.rows.rest(~(cg.rr.isfinite() & cg.rz.isfinite()), Stop.NONFINITE)
        cg.rows.rest(cg.rr <= floor**2 * cg.bb, Stop.CONVERGED)
        done = rule.done(History(phis, cg.rr, cg.bb), numbers)
        if done is not None:
            cg.rows.rest(done, rule.reason)

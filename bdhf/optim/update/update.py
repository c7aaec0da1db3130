"""One update: every block's quadratic model, solved alone, and the step that is accepted.

For every block b, with the step size t of the acceptance:

    (G_bb + λ_b I) d_b = -g_b,      then   θ_b ← θ_b + t · lr_b · d_b
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.forward.batches import Batches
from bdhf.optim.forward.objective import Objective
from bdhf.optim.products import BlockProduct
from bdhf.optim.solvers import Solution, Solver, System
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.update.acceptance import Acceptance
from bdhf.optim.update.callback import WithCallback
from bdhf.optim.update.candidates import CandidateSteps
from bdhf.optim.update.expansion import Expansion
from bdhf.optim.update.regularization import L2
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class Taken:
    """The accepted part of the solver's steps."""

    factor: float  # t; 0: nothing
    norm: float  # ‖Δθ‖₂
    reduction_ratio: float  # of the whole step
    group_ratios: tuple[float, ...]  # of the steps of some groups of blocks, each alone


@dataclass(frozen=True)
class Update:
    """The parts of an update, with λ and lr of every block, (rows,)."""

    objective: Objective
    blocks: Blocks
    solver: Solver
    acceptance: Acceptance
    penalty: L2
    flops: Flops
    watch: Callable[[], None] | None
    damping: Tensor
    lr: Tensor

    def solve(self, expansion: Expansion, product: BlockProduct, start: Tensor | None) -> Solution:
        """The direction d of every block; overwrites `start`. Zero where there is no model."""
        if not expansion.is_finite:  # even in one block: no block steps alone
            return Solution.nowhere(self.blocks, expansion.gradient)
        rhs = expansion.gradient.neg_()
        system = System(
            self.blocks, WithCallback(product, self.watch), rhs, self.damping + self.penalty.weight,
            keep_iterates=self.acceptance.needs_iterates, penalty=self.penalty.weight,
        )  # fmt: skip
        solution = self.solver.solve(system, start)
        rhs.neg_()  # in place both times: it is as long as the parameters
        return solution

    def take(
        self,
        expansion: Expansion,
        solution: Solution,
        move: Callable[[Tensor], None],
        groups: Sequence[Tensor],
    ) -> Taken:
        """Move the parameters by the accepted step; `groups` are masks of blocks, (rows,)."""
        trial = CandidateSteps(
            self.blocks, solution.iterates, expansion, self.lr, self.damping, move, self._loss
        )
        index, factor = self.acceptance.choose(trial)
        scale = factor * self.lr
        alone = [torch.where(group, scale, 0.0) for group in groups]
        group_ratios = tuple(trial.reduction_ratio(index, part) for part in alone)
        ratio = trial.reduction_ratio(index, scale)  # last, since the parameters stay there
        return Taken(factor, float(trial.step(index, scale).norm()), ratio, group_ratios)

    def _loss(self, batches: Batches) -> float:
        """The loss at the current parameters, with its penalty."""
        if self.watch is not None:
            self.watch()
        with self.flops.counting(("forward", self.objective.signature(batches))):
            loss = self.objective.loss(batches)
        return float(loss) + self.penalty.loss(self.objective)

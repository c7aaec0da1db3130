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
from bdhf.optim.solvers.system import Matrix
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.update.acceptance import Acceptance
from bdhf.optim.update.callback import WithCallback
from bdhf.optim.update.candidates import CandidateSteps
from bdhf.optim.update.carried import Carried
from bdhf.optim.update.expansion import Expansion
from bdhf.optim.update.momentum import Momentum
from bdhf.optim.update.regularization import L2
from bdhf.optim.update.stiffened import Stiffened
from bdhf.optim.update.structural import Structure
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class Taken:
    """The accepted part of the solver's steps."""

    factor: float  # t; 0: nothing
    norm: float  # ‖Δθ‖₂
    reduction_ratio: float  # of the whole step
    group_ratios: tuple[float, ...]  # of the steps of some groups of blocks, each alone
    step: Tensor | None  # Δθ, (P,) in block order, where momentum needs it


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
    momentum: Momentum | None = None
    structure: Structure | None = None  # of structural damping

    def solve(self, expansion: Expansion, product: BlockProduct, carried: Carried) -> Solution:
        """The direction d of every block, from what the updates before have left.

        Zero where there is no model.
        """
        if not expansion.is_finite:  # even in one block: no block steps alone
            return Solution.nowhere(self.blocks, expansion.gradient)
        matrix = WithCallback(product, self.watch)
        stiffened = self._stiffened(matrix, expansion.curvature_batches)
        rhs = expansion.gradient.neg_()
        system = System(
            self.blocks, stiffened or matrix, rhs, self.damping + self.penalty.weight,
            keep_iterates=self.acceptance.needs_iterates, stopping=carried.stopping(),
            memory=carried.memory(), updates=carried.updates, penalty=self.penalty.weight,
        )  # fmt: skip
        solution = self.solver.solve(system, carried.start())
        if self.momentum is not None:
            solution = self.momentum.combine(system, solution, carried.last_step())
        rhs.neg_()  # in place both times: it is as long as the parameters
        return solution if stiffened is None else stiffened.undamped(solution)

    def _stiffened(self, matrix: Matrix, batches: Batches) -> Stiffened | None:
        """The matrix with structural damping; None without."""
        if self.structure is None:
            return None
        products = self.solver.products(self.blocks)
        states = self.structure.linearise(batches, self.blocks, self.flops, products)
        scale = self.structure.weight * self.damping
        return Stiffened(self.blocks, matrix, WithCallback(states, self.watch), scale)

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
        step = trial.step(index, scale)
        kept = None if self.momentum is None else step
        return Taken(factor, float(step.norm()), ratio, group_ratios, kept)

    def _loss(self, batches: Batches) -> float:
        """The loss at the current parameters, with its penalty."""
        if self.watch is not None:
            self.watch()
        with self.flops.counting(("forward", self.objective.signature(batches))):
            loss = self.objective.loss(batches)
        return float(loss) + self.penalty.loss(self.objective)

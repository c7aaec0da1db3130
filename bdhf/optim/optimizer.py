"""Block-diagonal Hessian-free optimization: the quadratic model of every block, solved alone.

    for every block b:  (G_bb + λ_b I) d_b = -g_b,      then   θ_b ← θ_b + t · lr_b · d_b

Full HF is the case of one block. Zhang, Xiong, Bradbury, Socher (2017), Algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn

from bdhf.optim.curvature import GGN, Curvature
from bdhf.optim.diagnosis.coupling import refuse_coupled
from bdhf.optim.forward.batches import Batches, BatchOrList, micro_batches
from bdhf.optim.forward.objective import Objective
from bdhf.optim.inspection.check import check_curvature
from bdhf.optim.inspection.energy import Energy, off_block_energy
from bdhf.optim.inspection.flatness import warn_if_flat, warn_if_unbounded
from bdhf.optim.losses.weights import LossFn
from bdhf.optim.partitions import Partition, PerLayer
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import (
    MAX_BYTES,
    BlockProduct,
    Settings,
    Workspace,
    check_method,
    linearise,
)
from bdhf.optim.products.cost import warn_if_expensive
from bdhf.optim.refusals.refusals import refuse_no_parts
from bdhf.optim.solvers import CG, Solution, Solver
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.update.acceptance import Acceptance, FullStep
from bdhf.optim.update.block_optimizer import BlockOptimizer
from bdhf.optim.update.carried import Carried
from bdhf.optim.update.damping import Constant, Damping
from bdhf.optim.update.expansion import Expansion, expansion_at
from bdhf.optim.update.info import StepInfo
from bdhf.optim.update.parameter_steps import moving
from bdhf.optim.update.regularization import L2
from bdhf.optim.update.update import Taken, Update
from bdhf.optim.vectors.param_groups import masks


class BlockHessianFree(BlockOptimizer):
    """Block-diagonal Hessian-free optimization (Zhang et al. 2017) from exchangeable parts.

    `model` maps the inputs of a batch to one tensor of outputs; `loss_fn(outputs, targets)`
    returns a scalar loss, and is trained too if it is a module with parameters. The partition
    defines the blocks: `Full()` is ordinary Hessian-free. Blocks of whole tensors are param_groups
    with their own `lr` and `damping`. `seed` seeds what the curvature draws. `check` examines the
    products once, before the first update (`BlockCurvature.check`). `method="auto"` computes
    products in the cheaper way; `method`, `max_bytes`, `product_dtype` and `compile` are those of
    `block_curvature`. Raises ValueError for a partition that does not fit the model, a solver that
    does not fit blocks or curvature, an lr that is not positive, and an unknown method;
    ModelTypeError for a name, a number or a class in place of a part.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> x, y = torch.randn(64, 4), torch.randn(64, 1)
    >>> optimizer = BlockHessianFree(model, nn.functional.mse_loss, partition=PerLayer(), lr=1.0)
    >>> losses = [optimizer.step((x, y)).loss for _ in range(5)]
    >>> losses[-1] < losses[0]
    True
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        *,
        curvature: Curvature = GGN(),  # noqa: B008 - parts are frozen, so sharing one is safe
        partition: Partition = PerLayer(),  # noqa: B008
        solver: Solver = CG(),  # noqa: B008
        damping: Damping = Constant(),  # noqa: B008
        acceptance: Acceptance = FullStep(),  # noqa: B008
        regularization: L2 = L2(),  # noqa: B008
        lr: float = 0.5,
        seed: int = 0,
        check: bool = True,
        method: str = "auto",
        max_bytes: int = MAX_BYTES,
        product_dtype: torch.dtype | None = None,
        compile: bool = False,  # noqa: A002 - torch's word for it
    ) -> None:
        if not (math.isfinite(lr) and lr > 0):
            raise ValueError(f"lr must be finite and above 0; got {lr}")
        refuse_no_parts(
            curvature=curvature, solver=solver, damping=damping, acceptance=acceptance,
            regularization=regularization,
        )  # fmt: skip
        self.objective = Objective.of(model, loss_fn)
        self.curvature, self.solver, self.damping = curvature, solver, damping
        self.acceptance, self.regularization, self.seed = acceptance, regularization, seed
        self.settings = Settings(method, max_bytes, product_dtype, compile)
        check_method(self.settings)
        self.blocks = cut(self.objective.layout, partition).to(self.objective.device)
        solver.check(self.blocks, curvature)
        self._flops, self._workspace = Flops(), Workspace()
        self._unchecked = check
        self._lists_checked: Hashable = () if check else None  # flags of the model; None: never
        defaults = {"lr": lr, "damping": damping.initial}
        super().__init__(self.blocks, self.objective.parameters, defaults)

    def check(self, batch: BatchOrList, *, watch: Callable[[], None] | None = None) -> None:
        """Examine the products on a batch; the first update does so unless this was called before.

        `watch` is called before every product, and may raise. Raises CurvatureError for products
        that cannot be right, naming the suspected module. Warns when one product with all blocks
        costs more than fifty gradients (CostWarning), and where no curvature bounds a step
        (CurvatureWarning): for a loss that is linear in the outputs, or a parameter of the loss.
        """
        batches = micro_batches(batch)
        self.objective.check()
        with self.objective.arithmetic(), self.objective.random_state_kept():
            flops = Flops()  # a separate meter: the check is not counted in an update
            product = self._product(batches, flops)
            warn_if_expensive(product, flops)
            check_curvature(self.objective, product, self.curvature, watch)
            warn_if_flat(product, watch)
            penalty = self.regularization.weight
            warn_if_unbounded(self.objective, self.curvature, self.param_groups, penalty)
        self._unchecked = False

    def off_block_energy(self, batch: BatchOrList, probes: int = 8) -> float:
        """‖G - G_block‖_F / ‖G‖_F on a batch, at the current parameters, in [0, 1].

        By random signs (`BlockCurvature.off_block_energy`), which depend on `seed` and the number
        of updates. Changes nothing.
        """
        return self._energy(batch, probes).ratio

    def off_block_energy_interval(
        self, batch: BatchOrList, probes: int = 8, level: float = 0.95
    ) -> tuple[float, float]:
        """The ends (low, high) of a confidence interval of `off_block_energy` by the same probes.

        See `BlockCurvature.off_block_energy_interval`. Changes nothing.
        """
        return self._energy(batch, probes).interval(level)

    def _energy(self, batch: BatchOrList, probes: int) -> Energy:
        self.objective.check()
        with self.objective.arithmetic():
            product = self._product(micro_batches(batch), Flops())
            return off_block_energy(product, probes, self._carried.draws)

    @torch.no_grad()
    def step(  # type: ignore[override]  # a second-order step needs batches, not a closure
        self,
        batch: BatchOrList,
        curvature_batch: BatchOrList | None = None,
        *,
        watch: Callable[[], None] | None = None,
    ) -> StepInfo:
        """Update the parameters once.

        The gradient is taken on `batch`, the curvature on `curvature_batch` (None: the same). A
        tuple (inputs, targets) is one batch; a list of them is the micro-batches of one batch,
        weighted by their loss terms. `watch` is called before every product and before every loss
        of a trial step; after an exception in it or elsewhere, parameters and state are unchanged.
        For a loss or gradient that is not finite the parameters stay; `StepInfo.loss`, `grad_norm`
        and `stop` show it. Raises ModelError (a ValueError) for a model whose forward is not a
        function of each sample alone (batch normalisation, dropout in training mode), after a
        change of its trainable parameters, and for micro-batches of a model that couples samples;
        CurvatureError before the first update for products that cannot be right.
        """
        batches = micro_batches(batch)
        same = curvature_batch is None or curvature_batch is batch
        curvature_batches = batches if same else micro_batches(curvature_batch)
        self.objective.check()
        if max(len(batches), len(curvature_batches)) > 1:
            self._check_lists(batches, curvature_batches)
        if self._unchecked:
            self.check(batch if curvature_batch is None else curvature_batch, watch=watch)
        with self.objective.arithmetic():
            return self._step(batches, curvature_batches, watch)

    def _check_lists(self, *lists: Batches) -> None:
        """Refuse micro-batches of a model that couples samples; check again when a flag changes."""
        flags = self.objective.signature(())
        if self._lists_checked not in (None, flags):
            for batches in lists:
                refuse_coupled(self.objective, batches)
            self._lists_checked = flags

    def _step(
        self, batches: Batches, curvature_batches: Batches, watch: Callable[[], None] | None
    ) -> StepInfo:
        before, like = self._flops.spent, self.objective.parameters[0]
        update = Update(
            self.objective, self.blocks, self.solver, self.acceptance, self.regularization,
            self._flops, watch, self._per_block("damping", like), self._per_block("lr", like),
        )  # fmt: skip
        expansion, product = self._linearise(batches, curvature_batches)
        solution = update.solve(expansion, product, self._carried)
        del product  # free the graph before the parameters change
        with moving(self.objective.parameters) as move:
            taken = update.take(expansion, solution, move, self._groups_apart())
            spent = self._flops.spent - before
            info = StepInfo.of(expansion, solution, taken, self.param_groups, spent, self.blocks)
            self._remember(solution, taken)
        return info

    @torch.enable_grad()
    def _product(self, batches: Batches, flops: Flops) -> BlockProduct:
        """The curvature of a batch; its draws depend on the seed and the number of updates."""
        return linearise(
            self.objective, batches,
            curvature=self.curvature, blocks=self.blocks, flops=flops,
            seed=self._carried.draws,
            settings=self.settings, workspace=self._workspace,
            products=self.solver.products(self.blocks),
        )  # fmt: skip

    def _linearise(
        self, batches: Batches, curvature_batches: Batches
    ) -> tuple[Expansion, BlockProduct]:
        """Loss and gradient of the batch, and the matrix of the curvature batch."""
        product = self._product(curvature_batches, self._flops)
        expansion = expansion_at(
            self.objective, product, batches, curvature_batches, self.regularization, self._flops
        )
        return expansion, product

    def _groups_apart(self) -> list[Tensor]:
        """Masks of the blocks of each group, (rows,), where the damping needs their ratios."""
        if not self.damping.per_block or len(self.param_groups) == 1:
            return []
        return masks(self._group_of_block, self.objective.device)

    @property
    def _carried(self) -> Carried:
        warm_start = self.solver.warm_start
        return Carried(self.state, self.objective, self.blocks, warm_start, self.seed)

    def _remember(self, solution: Solution, taken: Taken) -> None:
        """Keep the state for the next update; nothing changes if a damping rule raises."""
        ratios = taken.group_ratios or [taken.reduction_ratio] * len(self.param_groups)
        pairs = zip(self.param_groups, ratios, strict=True)
        dampings = [self.damping.update(float(group["damping"]), ratio) for group, ratio in pairs]
        self._carried.keep(solution)
        for group, damping in zip(self.param_groups, dampings, strict=True):
            group["damping"] = damping

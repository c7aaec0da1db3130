"""Block-diagonal Hessian-free optimization: every block's quadratic model, solved on its own.

    for every block b:  (G_bb + λ_b I) d_b = -g_b,      then   θ_b ← θ_b + t · lr_b · d_b

Full HF is the case of one block. Zhang, Xiong, Bradbury, Socher (2017), Algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bdhf.optim.acceptance import Acceptance, FullStep
from bdhf.optim.curvature import GGN, Curvature
from bdhf.optim.damping import Constant, Damping
from bdhf.optim.flops import Flops, signature
from bdhf.optim.groups import param_groups
from bdhf.optim.layout import Blocks, layout_of, split_like
from bdhf.optim.moves import moving
from bdhf.optim.objective import Batch, LossFn, Objective
from bdhf.optim.partitions import Partition, PerLayer
from bdhf.optim.products import BlockProduct, linearise
from bdhf.optim.solvers import CG, Solution, Solver, Stop, System

Product = Callable[[Tensor, Sequence[int] | None], Tensor]


@dataclass(frozen=True)
class StepInfo:
    """What one update did. Tuples are per block, or per param_group where it says so."""

    loss: float  # on the gradient batch, before the update
    grad_norm: float  # ‖g‖₂ on the gradient batch
    step_norm: float  # ‖Δθ‖₂ as applied
    cg_iterations: tuple[int, ...]
    stop: tuple[Stop, ...]
    products: float  # Σ_b n_b · P_b / P: n_b products with block b of P_b parameters
    gradient_equivalents: float  # FLOPs of the update ÷ FLOPs of one gradient
    damping: tuple[float, ...]  # the λ that was used, per param_group
    step_size: tuple[float, ...]  # t · lr, per param_group
    reduction_ratio: float  # actual ÷ predicted change of the curvature batch's loss


#: What an optimizer has beside the attributes of its base class.
_OWN = (
    "objective", "curvature", "solver", "damping", "acceptance", "blocks",
    "_flops", "_group_of_block", "_complete",
)  # fmt: skip


class BlockHessianFree(torch.optim.Optimizer):
    """Block-diagonal Hessian-free optimization (Zhang et al. 2017), out of exchangeable parts.

    `model` maps the inputs of a batch to one tensor of outputs; `loss_fn(outputs, targets)`
    returns a scalar loss. The partition decides the blocks: `Full()` is ordinary Hessian-free.
    Blocks of whole tensors are param_groups with an `lr` and a `damping` of their own. Raises
    ValueError for a partition that does not fit the model and for an lr that is not positive.

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
        lr: float = 0.5,
    ) -> None:
        if not (math.isfinite(lr) and lr > 0):
            raise ValueError(f"lr must be finite and above 0; got {lr}")
        self.objective = Objective.of(model, loss_fn)
        self.curvature, self.solver = curvature, solver
        self.damping, self.acceptance = damping, acceptance
        layout = layout_of(model)
        self.blocks = Blocks.of(layout, partition(layout))
        self._flops = Flops()
        self._complete = False
        groups, self._group_of_block = param_groups(self.blocks, self.objective.parameters)
        super().__init__(groups, {"lr": lr, "damping": damping.initial})
        self._complete = True

    def __getstate__(self) -> dict[str, Any]:
        """Keep the parts too when copied or pickled; torch keeps state and groups only.

        The copy trains a copy of the model: copy them together, `deepcopy((model, optimizer))`.
        """
        own = {name: value for name, value in vars(self).items() if name in _OWN}
        return {**super().__getstate__(), **own}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse: the groups are the partition's blocks."""
        if self._complete:
            raise TypeError(
                "the param_groups of BlockHessianFree are the blocks of its partition; build a "
                "new optimizer for a model with more trainable parameters"
            )
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(  # type: ignore[override]  # a second-order step needs batches, not a closure
        self,
        batch: Batch,
        curvature_batch: Batch | None = None,
        *,
        watch: Callable[[], None] | None = None,
    ) -> StepInfo:
        """Update the parameters once.

        The gradient is taken on `batch`, the curvature on `curvature_batch` (None: the same).
        `watch` is called before every product; when it, or anything else, raises, parameters and
        state stay as they were. A loss or gradient that is not finite moves nothing, and says so
        in `StepInfo.loss`, `grad_norm` and `stop`. Raises ValueError for a model whose forward is
        not a function of each sample alone (batch normalisation, dropout in training mode).
        """
        curvature_batch = batch if curvature_batch is None else curvature_batch
        self.objective.check(batch, curvature_batch)
        with torch.autocast(self.objective.device.type, enabled=False):
            return self._step(batch, curvature_batch, watch)

    def _step(
        self, batch: Batch, curvature_batch: Batch, watch: Callable[[], None] | None
    ) -> StepInfo:
        spent = self._flops.spent
        loss, gradient, product = self._linearise(batch, curvature_batch)
        norm = float(gradient.norm())
        curvature_loss = float(product.loss)
        finite = all(map(math.isfinite, (loss, norm, curvature_loss)))
        rhs = -gradient if finite else torch.full_like(gradient, math.nan)  # no block may move
        damping, lr = self._per_block("damping"), self._per_block("lr")
        system = System(self.blocks, _watched(product, watch), rhs, damping)
        solution = self.solver.solve(system, self._start())
        del product, system  # the graph goes before the parameters move
        step = self.blocks.add_scaled_(torch.zeros_like(solution.x), lr, solution.x)
        with moving(self.objective.parameters) as move:

            def loss_at(factor: float, batch: Batch = batch) -> float:
                move(self.blocks.scatter(factor * step))
                return self._loss(batch)

            factor = self.acceptance.factor(loss_at, slope=float(gradient @ step))
            change = loss_at(factor, curvature_batch) - curvature_loss
            predicted = self._predicted_change(solution, gradient, damping, factor * lr)
            info = StepInfo(
                loss=loss,
                grad_norm=norm,
                step_norm=abs(factor) * float(step.norm()),
                cg_iterations=solution.iterations,
                stop=solution.stop,
                products=self._full_products(solution),
                gradient_equivalents=self._in_gradients(self._flops.spent - spent),
                damping=tuple(float(group["damping"]) for group in self.param_groups),
                step_size=tuple(factor * float(group["lr"]) for group in self.param_groups),
                reduction_ratio=change / predicted if predicted else math.nan,
            )
            self._remember(solution.x, info)
        return info

    @torch.enable_grad()
    def _linearise(
        self, batch: Batch, curvature_batch: Batch
    ) -> tuple[float, Tensor, BlockProduct]:
        """Loss and gradient (P,) of the batch, and the product of the curvature batch."""
        product = linearise(
            self.objective, curvature_batch,
            curvature=self.curvature, blocks=self.blocks, flops=self._flops,
        )  # fmt: skip
        if curvature_batch is batch:
            self._gradient_cost = self._flops.cost(("linearise", signature(batch)))
            return float(product.loss), product.gradient, product
        key = ("gradient", signature(batch))
        loss, gradient = self._flops.run(key, lambda: self._gradient(batch))
        self._gradient_cost = self._flops.cost(key)
        return loss, gradient, product

    def _gradient(self, batch: Batch) -> tuple[float, Tensor]:
        """Loss and gradient, (P,) in block order, by one backward pass."""
        loss = self.objective.loss(batch)
        gradients = torch.autograd.grad(
            loss, self.objective.parameters, allow_unused=True, materialize_grads=True
        )
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        return float(loss.detach()), self.blocks.gather(flat)

    def _loss(self, batch: Batch) -> float:
        key = ("forward", signature(batch))
        return float(self._flops.run(key, lambda: self.objective.loss(batch)))

    def _per_block(self, key: str) -> Tensor:
        """A setting of the param_groups as one entry per block, (rows,)."""
        values = [float(self.param_groups[group][key]) for group in self._group_of_block]
        like = self.objective.parameters[0]
        return torch.tensor(values, dtype=like.dtype, device=like.device)

    def _predicted_change(
        self, solution: Solution, gradient: Tensor, damping: Tensor, scale: Tensor
    ) -> float:
        """Σ_b of gᵀs + ½ sᵀG_bb s at s = scale_b · d_b: the block model, without damping."""
        slope = self.blocks.dot(gradient, solution.x)
        norm = self.blocks.dot(solution.x, solution.x)
        curvature = 2 * (solution.model - slope) - damping * norm  # dᵀG d, from φ
        return float((scale * slope + 0.5 * scale**2 * curvature).sum())

    def _full_products(self, solution: Solution) -> float:
        spent = zip(solution.products, self.blocks.rows, strict=True)
        return sum(count * block.size for count, block in spent) / self.blocks.layout.size

    def _in_gradients(self, flops: int) -> float:
        """FLOPs in units of one gradient; NaN when torch counts none in a gradient."""
        return flops / self._gradient_cost if self._gradient_cost else math.nan

    def _start(self) -> Tensor | None:
        """The warm start, (P,) in block order; None at the first update or when it is off."""
        found = [self.state[p].get("direction") for p in self.objective.parameters]
        if not self.solver.warm_start or any(direction is None for direction in found):
            return None
        flat = torch.cat([direction.reshape(-1) for direction in found])
        if not flat.any():  # the last update moved nothing: there is no start to save work
            return None
        return self.solver.warm_start * self.blocks.gather(flat)

    def _remember(self, direction: Tensor, info: StepInfo) -> None:
        """Keep what the next update starts from; nothing is kept if a damping rule raises."""
        dampings = [self.damping.update(value, info.reduction_ratio) for value in info.damping]
        parameters = self.objective.parameters
        parts = split_like(self.blocks.scatter(direction), parameters)
        for parameter, part in zip(parameters, parts, strict=True):
            self.state[parameter]["direction"] = part
        for group, damping in zip(self.param_groups, dampings, strict=True):
            group["damping"] = damping


def _watched(product: BlockProduct, watch: Callable[[], None] | None) -> Product:
    """The product, with `watch` called before each one."""

    def watched(v: Tensor, active: Sequence[int] | None = None) -> Tensor:
        if watch is not None:
            watch()
        return product(v, active)

    return watched

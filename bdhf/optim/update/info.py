"""The report of one update."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bdhf.optim.solvers import Solution, Stop
from bdhf.optim.update.expansion import Expansion
from bdhf.optim.update.update import Taken
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class StepInfo:
    """What one update did. Tuples are per block, or per param_group where noted."""

    loss: float  # on the gradient batch, before the update, penalty included
    grad_norm: float  # ‖g‖₂ on the gradient batch
    step_norm: float  # ‖Δθ‖₂ of the applied step
    cg_iterations: tuple[int, ...]
    stop: tuple[Stop, ...]
    products: float  # Σ_b n_b · P_b / P: n_b products with block b of P_b parameters
    gradient_equivalents: float  # FLOPs of the update ÷ FLOPs of one gradient
    damping: tuple[float, ...]  # λ of this update, per param_group
    step_size: tuple[float, ...]  # t · lr, per param_group
    reduction_ratio: float  # actual ÷ predicted change of the curvature batch's loss; NaN: no fall

    @classmethod
    def of(
        cls,
        expansion: Expansion,
        solution: Solution,
        taken: Taken,
        groups: Sequence[Mapping[str, Any]],
        spent: int,
        blocks: Blocks,
    ) -> StepInfo:
        """Collect the report; `groups` are the param_groups of the update, `spent` is in FLOPs."""
        products = zip(solution.products, blocks.rows, strict=True)
        unit = expansion.gradient_cost  # 0 where torch counts no FLOPs in a gradient
        return cls(
            loss=expansion.loss,
            grad_norm=expansion.norm,
            step_norm=taken.norm,
            cg_iterations=solution.iterations,
            stop=solution.stop,
            products=sum(count * block.size for count, block in products) / blocks.layout.size,
            gradient_equivalents=spent / unit if unit else math.nan,
            damping=tuple(float(group["damping"]) for group in groups),
            step_size=tuple(taken.factor * float(group["lr"]) for group in groups),
            reduction_ratio=taken.reduction_ratio,
        )

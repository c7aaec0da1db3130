"""Warnings for zero curvature, where a step is the gradient divided by the damping.

(0 + λ) d = -g,    so that    θ ← θ - (lr / λ) g,    of length 500 ‖g‖ by default
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature, hessian_share
from bdhf.optim.forward.objective import Objective
from bdhf.optim.losses.hessians import Differentiated
from bdhf.optim.partitions import Full
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import BlockProduct

#: lr / damping above which a step along the gradient is long.
LONG = 1.0


class CurvatureWarning(UserWarning):
    """Parameters that no curvature bounds: their step is the gradient divided by the damping."""


def warn_if_flat(product: BlockProduct, watch: Callable[[], None] | None = None) -> None:
    """Warn where the curvature is exactly 0, and the gradient is not.

    `watch` is called before a product, and may raise.
    """
    gradient = product.gradient
    if not bool(gradient.any()) or not bool(gradient.isfinite().all()):
        return
    if not _is_flat(product, watch):
        return
    hessians = [part.hessian for _, part in product.parts]
    why = "on this batch"
    if all(isinstance(hessian, Differentiated) for hessian in hessians):
        why = (
            "since the loss is linear in the outputs, as are l1_loss, hinge losses, and nll_loss "
            "or kl_div of outputs that are not log-probabilities (or in a function around it)"
        )
    warnings.warn(
        f"the curvature is exactly 0 {why}: every step would be the gradient divided by the "
        "damping. Use a loss with curvature (cross_entropy of logits, nll_loss behind a "
        "LogSoftmax, mse_loss, smooth_l1_loss), or set the damping to 1 / learning rate",
        CurvatureWarning,
        stacklevel=3,
    )


def _is_flat(product: BlockProduct, watch: Callable[[], None] | None) -> bool:
    """Whether the product with a random vector is 0; with H alone, where there is one."""
    draws = torch.Generator().manual_seed(0)

    def random(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=draws).to(like)

    for _, part in product.parts:
        if part.hessian is None:
            if watch is not None:
                watch()
            full = cut(product.blocks.layout, Full())
            return not bool(product.cut_to(full, random(product.gradient)).any())
        if bool(part.hessian(random(part.outputs.detach())).any()):
            return False
    return True


def warn_if_unbounded(
    objective: Objective,
    curvature: Curvature,
    groups: Sequence[Mapping[str, Any]],
    penalty: float,
) -> None:
    """Warn where parameters of the loss alone would move by more than their gradient.

    `groups` are the param_groups, `penalty` the weight of an L2 that is added to the damping.
    """
    if hessian_share(curvature):
        return
    models = set(objective.model.parameters())
    for index, group in enumerate(groups):
        bare = [p not in models for p in group["params"]]
        damping = float(group["damping"]) + penalty
        if not any(bare) or float(group["lr"]) <= LONG * damping:
            continue
        names = ", ".join(n for n, own in zip(group["names"], bare, strict=True) if own)
        rate = float(group["lr"]) / damping if damping else float("inf")
        way = f"set optimizer.param_groups[{index}]['damping'] to lr / (the learning rate you want)"
        if not all(bare):
            way = "give them a separate block (PerLayer, Groups) with its own damping"
        warnings.warn(
            f"parameters that only the loss holds ({names}) have no curvature, so every update "
            f"moves them by lr / damping = {rate:.3g} times their gradient: {way}",
            CurvatureWarning,
            stacklevel=3,
        )

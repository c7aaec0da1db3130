"""How an optimizer computes an update: its products, its preconditioner, and what they cost."""

from __future__ import annotations

import torch
from torch import Tensor

from bdhf.optim.forward.batches import BatchOrList, micro_batches
from bdhf.optim.optimizer import BlockHessianFree
from bdhf.optim.products import BlockProduct, linearise
from bdhf.optim.solvers import NoPreconditioner, System
from bdhf.optim.torch_support.flops import Flops


@torch.no_grad()
def explain(optimizer: BlockHessianFree, batch: BatchOrList) -> str:
    """How products are computed on a curvature batch and why, and what the preconditioner is.

    One line each. Costs are in gradients of the batch, at the current parameters; nothing changes.
    Raises what an update raises.

    >>> from torch import nn
    >>> from bdhf.optim import CG, KFAC
    >>> model, batch = nn.Linear(4, 2), (torch.eye(4), torch.zeros(4, 2))
    >>> solver = CG(preconditioner=KFAC())
    >>> optimizer = BlockHessianFree(model, nn.functional.mse_loss, solver=solver)
    >>> print(explain(optimizer, batch).splitlines()[1])
    preconditioner: K-FAC, sites: 1, inverses of factors: 1 Cholesky, 1 multiple of I; 3.29 \
gradients once per update, 0.78 per iteration
    """
    optimizer.objective.check()
    flops = Flops()
    with optimizer.objective.arithmetic():
        with torch.enable_grad():
            product = linearise(
                optimizer.objective, micro_batches(batch), curvature=optimizer.curvature,
                blocks=optimizer.blocks, flops=flops, seed=optimizer.seed,
                settings=optimizer.settings, products=optimizer.solver.products(optimizer.blocks),
            )  # fmt: skip
        lines = [f"products by {product.method}: {product.why}"]
        preconditioner = getattr(optimizer.solver, "preconditioner", NoPreconditioner())
        if not isinstance(preconditioner, NoPreconditioner):
            lines.append(f"preconditioner: {_described(optimizer, product, flops)}")
    return "\n".join(lines)


def _described(optimizer: BlockHessianFree, product: BlockProduct, flops: Flops) -> str:
    """What the preconditioner is made of, and the cost of its set-up and of one application."""
    preconditioner = getattr(optimizer.solver, "preconditioner")  # noqa: B009 - of some solvers
    gradient = sum(flops.cost(("linearise", part.shapes)) for _, part in product.parts)
    before, v = flops.spent, product.gradient
    damping = optimizer._per_block("damping", v) + optimizer.regularization.weight
    inverse = preconditioner(System(product.blocks, product, v, damping))
    built, what = flops.spent, type(preconditioner).__name__
    if inverse is not None and not isinstance(inverse, Tensor):
        inverse(v)
        what = inverse.why
    if not gradient:
        return what
    once, step = (built - before) / gradient, (flops.spent - built) / gradient
    return f"{what}; {once:.2f} gradients once per update, {step:.2f} per iteration"

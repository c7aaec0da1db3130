"""How an update is computed: the method of the products, the preconditioner, and their costs."""

from __future__ import annotations

from torch import Tensor

from bdhf.optim.products import BlockProduct
from bdhf.optim.solvers import NoPreconditioner, Solver, System
from bdhf.optim.torch_support.flops import Flops


def explain(product: BlockProduct, solver: Solver, damping: Tensor, flops: Flops) -> str:
    """One line on the products, and one on the preconditioner where the solver has one.

    `flops` has metered the linearisation of `product` and nothing else; `damping` is λ, (rows,).
    Costs are in gradients of the curvature batch.
    """
    gradient = sum(flops.cost(("linearise", part.shapes)) for _, part in product.parts)
    lines = [f"products by {product.method}: {product.why}"]
    preconditioner = getattr(solver, "preconditioner", NoPreconditioner())
    if not isinstance(preconditioner, NoPreconditioner):
        before, v = flops.spent, product.gradient
        inverse = preconditioner(System(product.blocks, product, v, damping))
        built = flops.spent
        what = type(preconditioner).__name__
        if inverse is not None and not isinstance(inverse, Tensor):
            inverse(v)
            what = inverse.why
        if gradient:
            set_up, step = (built - before) / gradient, (flops.spent - built) / gradient
            what += f"; {set_up:.2f} gradients once per update, {step:.2f} per iteration"
        lines.append(f"preconditioner: {what}")
    return "\n".join(lines)

"""What one update of an optimizer will cost, in gradients, and how it will be computed."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.errors import CurvatureError
from bdhf.optim.forward.batches import Batch, BatchOrList, micro_batches
from bdhf.optim.forward.objective import Objective
from bdhf.optim.optimizer import BlockHessianFree
from bdhf.optim.products import BlockProduct, Settings, linearise
from bdhf.optim.products.cost import Sweeps, sweeps, with_term
from bdhf.optim.solvers import NeedsSites, NoPreconditioner, Solver, System
from bdhf.optim.torch_support.flops import Done, Flops, Tally
from bdhf.optim.update.damping import Constant, Damping
from bdhf.optim.update.momentum import Momentum, products_of
from bdhf.optim.update.structural import structure_of
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class Shared:
    """What estimates on one model, loss and batch share, computed once.

    That is the forward pass with its tape, its checks, and the sweeps from every set of tensors;
    they are kept with this object. Curvature, partition and solver may differ.
    """

    done: dict[Hashable, dict[Hashable, Done]] = field(default_factory=dict)

    def tally(self, settings: Settings) -> Tally:
        """A meter that shares what was computed for products of the same kind."""
        return Tally(self.done.setdefault((settings.dtype, settings.compile), {}))


def factor_rows(optimizer: BlockHessianFree, batch: Batch) -> float:
    """Rows of the factor per sample, which `SampleSpace` solves for. NaN without a factor.

    >>> from torch import nn
    >>> optimizer = BlockHessianFree(nn.Linear(4, 2), nn.functional.mse_loss)
    >>> factor_rows(optimizer, (torch.zeros(8, 4), torch.zeros(8, 2)))
    2.0
    """
    return _of(optimizer, batch).factor_rows


def estimate(
    optimizer: BlockHessianFree,
    batch: Batch,
    *,
    gradient_batch: int,
    curvature_batch: int | None = None,
) -> float:
    """Gradient equivalents of one update at most: FLOPs on a small batch, scaled to the sizes.

    `batch` is a few samples of the right shapes; `gradient_batch` and `curvature_batch` (None: the
    same batch) are the numbers of samples of an update. The solver is assumed to use all of its
    iterations; a line search is not counted.

    >>> from torch import nn
    >>> optimizer = BlockHessianFree(nn.Linear(4, 2), nn.functional.mse_loss)
    >>> batch = torch.zeros(8, 4), torch.zeros(8, 2)
    >>> estimate(optimizer, batch, gradient_batch=1000, curvature_batch=100) < 10
    True
    """
    cost, solver, momentum = _of(optimizer, batch), optimizer.solver, optimizer.momentum
    return scaled(cost, solver, momentum, gradient_batch, curvature_batch)


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


def scaled(
    cost: Sweeps,
    solver: Solver,
    momentum: Momentum | None,
    gradient_batch: int,
    curvature_batch: int | None,
) -> float:
    """`estimate` from the cost of products."""
    solve = cost.setup + solver.cost(cost, curvature_batch or gradient_batch)
    solve += products_of(momentum) * cost.product
    if curvature_batch is None:
        return 1 + solve + 1 / 3  # a forward pass is a third of a gradient
    return 1 + curvature_batch / gradient_batch * (1 + solve + 1 / 3)


def _of(optimizer: BlockHessianFree, batch: Batch) -> Sweeps:
    return count_products(
        optimizer.objective, batch, Shared(),
        curvature=optimizer.curvature, blocks=optimizer.blocks, solver=optimizer.solver,
        momentum=optimizer.momentum, settings=optimizer.settings, damping=optimizer.damping,
    )  # fmt: skip


def site_refusal(
    objective: Objective,
    batch: Batch,
    *,
    curvature: Curvature,
    blocks: Blocks,
    solver: Solver,
    settings: Settings,
) -> str:
    """Why a solver's preconditioner does not fit the model, by a few samples; "" if it does."""
    preconditioner = getattr(solver, "preconditioner", None)
    if not isinstance(preconditioner, NeedsSites):
        return ""
    with torch.enable_grad(), objective.arithmetic():
        product = linearise(
            objective, micro_batches(batch), curvature=curvature, blocks=blocks, flops=Flops(),
            settings=settings, products=solver.products(blocks),
        )  # fmt: skip
        try:
            preconditioner.check_sites(product.site_samples())
        except CurvatureError as error:
            return str(error)
    return ""


def count_products(
    objective: Objective,
    batch: Batch,
    shared: Shared,
    *,
    curvature: Curvature,
    blocks: Blocks,
    solver: Solver,
    settings: Settings,
    momentum: Momentum | None = None,
    damping: Damping = Constant(),  # noqa: B008 - parts are frozen, so sharing one is safe
) -> Sweeps:
    """The cost of the products of an update; `shared` is for the same model, loss and batch."""
    objective.check()
    products = solver.products(blocks) + products_of(momentum)
    flops = shared.tally(settings)
    structure = structure_of(damping, objective.model, objective.loss_fn, settings)
    with torch.enable_grad(), objective.arithmetic():
        product = linearise(
            objective, micro_batches(batch), curvature=curvature, blocks=blocks, flops=flops,
            settings=settings, products=products,
        )  # fmt: skip
        samples = len(product.parts[0][1].outputs)
        cost = sweeps(product, flops, samples)
        if isinstance(getattr(solver, "preconditioner", None), NeedsSites):
            cost = replace(cost, sites=product.site_samples().sizes)
        if structure is None:
            return cost
        flops = shared.tally(settings)
        states = structure.linearise(micro_batches(batch), blocks, flops, products)
        return with_term(cost, sweeps(states, flops, samples))

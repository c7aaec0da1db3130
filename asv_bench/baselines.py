"""Other libraries with products of the same matrix: curvlinops, and BackPACK in two ways.

They have no optimizer, so their update is a textbook CG, block by block.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from asv_bench.adapter import DAMPING, ITERATIONS, LR, Adapter, NotApplicable, Product
from asv_bench.workloads import Workload
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.vectors.layout import flatten, layout_of, split_like

Indices = Sequence[int]  # which parameters a block has

#: A linearised model: its gradient, and the product of a block, (P_b,) -> (P_b,).
Linearised = tuple[Sequence[Tensor], Callable[[Indices], Product]]
Linearise = Callable[[], Linearised]

#: Modules in the Sequentials of the workloads that GGNMP supports.
KNOWN = (nn.Conv2d, nn.Flatten, nn.Linear, nn.ReLU, nn.Sigmoid, nn.Tanh)


def curvlinops(workload: Workload, partition: str) -> Adapter:
    """curvlinops: a GGNLinearOperator for each block, with the parameters of the block."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a dependency uses torch.jit.script, which warns
            from curvlinops import GGNLinearOperator
    except ImportError as missing:
        raise NotApplicable("curvlinops-for-pytorch is not installed") from missing

    def prepare(own: Workload) -> Linearise:
        def block(indices: Indices) -> Product:
            parameters = [own.parameters[i] for i in indices]
            operator = GGNLinearOperator(
                own.model, own.loss, parameters, [own.batch], check_deterministic=False
            )
            return lambda v: operator @ v

        return lambda: (own.gradient(), block)

    return _adapter(workload, partition, "two forward passes", prepare)


def ggnvp(workload: Workload, partition: str) -> Adapter:
    """BackPACK's `ggn_vector_product_from_plist` on a retained graph, for any model."""
    try:
        from backpack.hessianfree.ggnvp import ggn_vector_product_from_plist as multiply
    except ImportError as missing:
        raise NotApplicable("backpack-for-pytorch is not installed") from missing

    def linearise(own: Workload) -> Linearised:
        inputs, targets = own.batch
        outputs = own.model(inputs)
        loss = own.loss(outputs, targets)

        def block(indices: Indices) -> Product:
            parameters = [own.parameters[i] for i in indices]
            return lambda v: flatten(multiply(loss, outputs, parameters, split_like(v, parameters)))

        return torch.autograd.grad(loss, own.parameters, retain_graph=True), block

    return _adapter(workload, partition, "graph kept", lambda own: lambda: linearise(own))


def ggnmp(workload: Workload, partition: str) -> Adapter:
    """BackPACK's GGNMP, module by module of a Sequential; every tensor is a block."""
    try:
        from backpack import backpack, extend
        from backpack.extensions import GGNMP
    except ImportError as missing:
        raise NotApplicable("backpack-for-pytorch is not installed") from missing
    _leaves(workload.model)
    if any(len(indices) > 1 for indices in _blocks(workload, partition)):
        raise NotApplicable("its blocks are single tensors")

    def prepare(own: Workload) -> Linearise:
        model, loss = extend(nn.Sequential(*_leaves(own.model))), extend(type(own.loss)())
        inputs, targets = own.batch

        def linearise() -> Linearised:
            with backpack(GGNMP()), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook")
                loss(model(inputs), targets).backward()
            left = [_taken(parameter) for parameter in own.parameters]
            return [gradient for gradient, _ in left], lambda indices: left[indices[0]][1]

        return linearise

    return _adapter(workload, partition, "module by module", prepare)


def _taken(parameter: Any) -> tuple[Tensor, Product]:
    """The gradient and the product of flat vectors that GGNMP stored at a parameter."""
    gradient, multiply, shape = parameter.grad, parameter.ggnmp, parameter.shape
    parameter.grad = None
    del parameter.ggnmp  # else the graph would live longer than the product
    return gradient, lambda v: multiply(v.view(1, *shape)).reshape(-1)


def _leaves(model: nn.Module) -> list[nn.Module]:
    """The modules of nested Sequentials in order, without identities."""
    if isinstance(model, nn.Sequential):
        return [leaf for child in model for leaf in _leaves(child)]
    if isinstance(model, KNOWN):
        return [model]
    if isinstance(model, nn.Identity):
        return []
    name = type(model).__name__.lstrip("_")
    raise NotApplicable(f"it needs a Sequential of supported modules, not {name}")


def _blocks(workload: Workload, partition: str) -> list[Indices]:
    """The parameters of every block. Raises NotApplicable for blocks of parts of tensors."""
    blocks = cut(layout_of(workload.model), workload.partitions[partition])
    if any(block.within is not None for block in blocks.rows):
        raise NotApplicable("a block is a part of tensors")
    return [block.slots for block in blocks.rows]


def _adapter(
    workload: Workload, partition: str, method: str, prepare: Callable[[Workload], Linearise]
) -> Adapter:
    """The adapter of a way to linearise; product and update have separate models."""
    blocks, kept, moved = _blocks(workload, partition), workload.copy(), workload.copy()
    linearise, again = prepare(kept), prepare(moved)

    def set_up() -> Product:
        _, block = linearise()
        products = [block(indices) for indices in blocks]

        def product(v: Tensor) -> Tensor:
            parts = split_like(v, kept.parameters)
            for indices, multiply in zip(blocks, products, strict=True):
                own = [parts[i] for i in indices]
                for i, part in zip(indices, split_like(multiply(flatten(own)), own), strict=True):
                    parts[i] = part
            return flatten(parts)

        return product

    update = partial(_update, moved, blocks, again)
    return Adapter(
        method=method, blocks=len(blocks), first=set_up, set_up=set_up, update=update,
        probe=partial(update, iterations=2),
    )  # fmt: skip


def _update(
    workload: Workload,
    blocks: Sequence[Indices],
    linearise: Linearise,
    iterations: int = ITERATIONS,
) -> None:
    """One update of block-diagonal Hessian-free optimization; all blocks at one θ."""
    gradient, block = linearise()
    steps = []
    for indices in blocks:
        rhs = -flatten([gradient[i] for i in indices])
        steps.append(conjugate_gradients(block(indices), rhs, iterations))
    del block  # release the graph before the parameters move
    with torch.no_grad():
        for indices, step in zip(blocks, steps, strict=True):
            parameters = [workload.parameters[i] for i in indices]
            for parameter, part in zip(parameters, split_like(step, parameters), strict=True):
                parameter.add_(part, alpha=LR)


def conjugate_gradients(product: Product, rhs: Tensor, iterations: int) -> Tensor:
    """Solve (G + λI) x = rhs from zero by these iterations (Hestenes & Stiefel 1952)."""
    x, r = torch.zeros_like(rhs), rhs.clone()
    p, rr = r.clone(), r @ r
    for _ in range(iterations):
        ap = product(p) + DAMPING * p
        length = rr / (p @ ap)
        x += length * p
        r -= length * ap
        last, rr = rr, r @ r
        p = r + rr / last * p
    return x


BASELINES: Mapping[str, Callable[[Workload, str], Adapter]] = {
    "curvlinops": curvlinops,
    "BackPACK ggnvp": ggnvp,
    "BackPACK GGNMP": ggnmp,
}

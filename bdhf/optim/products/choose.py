"""Which way to compute a product: the table of methods, and the choice that "auto" makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from bdhf.optim.curvature import Curvature, Hessian
from bdhf.optim.flops import Flops
from bdhf.optim.layout import Blocks
from bdhf.optim.losses import is_mean, weights
from bdhf.optim.objective import Batch, Objective
from bdhf.optim.products.double_backward import DoubleBackward
from bdhf.optim.products.linearisation import Linearisation
from bdhf.optim.products.product import BlockProduct
from bdhf.optim.products.propagate import Propagate
from bdhf.optim.products.request import EXPECTED_PRODUCTS, Request, Settings, Workspace

Linearise = Callable[[Request], Linearisation]


def _propagate(request: Request) -> Linearisation:
    """By reverse sweeps through a kept graph: of the outputs, or of the gradient."""
    if isinstance(request.curvature, Hessian):
        return DoubleBackward(request)
    return Propagate(request, request.curvature)


METHODS: Mapping[str, Linearise] = {"propagate": _propagate}


def linearise(
    objective: Objective,
    batches: Sequence[Batch],
    *,
    curvature: Curvature,
    blocks: Blocks,
    flops: Flops,
    seed: int = 0,
    settings: Settings = Settings(),  # noqa: B008 - frozen, so shared safely
    workspace: Workspace | None = None,
    products: int = EXPECTED_PRODUCTS,
) -> BlockProduct:
    """Linearise the curvature at the current parameters on the micro-batches of one batch.

    `seed` begins the stream of what the curvature draws; `workspace` keeps what outlives the
    linearisation; `products` is how many products are expected of it. Raises ValueError for an
    unknown method.
    """
    name = "propagate" if settings.method == "auto" else settings.method
    if name not in METHODS:
        raise ValueError(
            f"unknown product method {settings.method!r}; known: auto, {', '.join(METHODS)}"
        )
    generator = torch.Generator(objective.device).manual_seed(seed)
    workspace = Workspace() if workspace is None else workspace
    parts = [
        METHODS[name](
            Request(
                objective, batch, curvature, blocks, generator, flops,
                settings, workspace, products,
            )
        )
        for batch in batches
    ]  # fmt: skip
    pairs = [(part.outputs, batch[1]) for part, batch in zip(parts, batches, strict=True)]
    shares = weights(objective.loss_fn, pairs)
    samples = sum(outputs.shape[0] if outputs.dim() else 1 for outputs, _ in pairs)
    scale = samples if is_mean(objective.loss_fn) else 1
    counted = [pair for pair in zip(shares, parts, strict=True) if pair[0] != 0]
    return BlockProduct(name, parts[0].why, tuple(counted), blocks, scale)

"""Which way to compute a product: the table of methods, and the choice that "auto" makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.flops import Flops
from bdhf.optim.layout import Blocks
from bdhf.optim.objective import Batch, Objective
from bdhf.optim.products.propagate import Propagate


class BlockProduct(Protocol):
    """A curvature linearised at one θ on one batch: loss, gradient, and products with blocks."""

    method: str
    loss: Tensor  # ()
    gradient: Tensor  # (P,) in block order

    def __call__(self, v: Tensor, active: Sequence[int] | None = None) -> Tensor:
        """G_bb v_b for every active block b (None: all), zero elsewhere; block order."""


Linearise = Callable[[Objective, Batch, Curvature, Blocks, Flops], BlockProduct]

METHODS: Mapping[str, Linearise] = {"propagate": Propagate}


def linearise(
    objective: Objective,
    batch: Batch,
    *,
    curvature: Curvature,
    blocks: Blocks,
    flops: Flops,
    method: str = "auto",
) -> BlockProduct:
    """Linearise the curvature at the current parameters on one batch (inputs, targets).

    `method` is a key of `METHODS`, or "auto", which is `propagate`: exact for every model.
    Raises ValueError for an unknown method.
    """
    name = "propagate" if method == "auto" else method
    if name not in METHODS:
        raise ValueError(f"unknown product method {method!r}; known: auto, {', '.join(METHODS)}")
    return METHODS[name](objective, batch, curvature, blocks, flops)

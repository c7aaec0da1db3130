"""A model linearised as every update of a run but the first does it.

What is decided, traced and counted once is kept from call to call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

import bdhf

from .moved import named

if TYPE_CHECKING:
    from bdhf.optim.losses.weights import LossFn
    from bdhf.optim.products import BlockProduct, Settings
    from bdhf.optim.vectors.blocks import Blocks


def linearising(
    model: nn.Module,
    loss: LossFn,
    batch: tuple[Tensor, Tensor],
    curvature: bdhf.optim.Curvature,
    partition: bdhf.optim.Partition,
    settings: Settings | None = None,
    products: Callable[[Blocks], int] = lambda blocks: 30,
) -> tuple[Blocks, Callable[[], BlockProduct]]:
    """The blocks of the partition, and what linearises once more.

    `products` tells how many a linearisation is to serve, by which a method is chosen.
    """
    from bdhf.optim.products import Settings, Workspace, linearise

    objective = named("Objective").of(model, loss)
    blocks: Blocks = named("cut")(named("layout_of")(model), partition)
    workspace, flops = Workspace(), named("Flops")()

    def again() -> BlockProduct:
        return linearise(
            objective, (batch,), curvature=curvature, blocks=blocks, flops=flops,
            settings=settings or Settings(), workspace=workspace, products=products(blocks),
        )  # fmt: skip

    return blocks, again

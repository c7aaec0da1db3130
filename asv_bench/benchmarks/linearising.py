"""Linearise a model as in every update of a run after the first one.

Choices, traces and counts of the first call are kept.
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
    """The blocks of the partition, and a function that linearises again.

    `products` is the number of products per linearisation, by which a method is chosen.
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

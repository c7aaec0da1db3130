"""One block a layer: the tensors that one leaf module owns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.layout import Layout


@dataclass(frozen=True)
class PerLayer:
    """One block per module that owns trainable tensors: a layer's weight with its bias.

    A tied tensor belongs to the first name that torch reports for it.

    >>> from torch import nn
    >>> from bdhf.optim.layout import layout_of
    >>> mlp = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    >>> [tuple(rows.shape) for rows in PerLayer()(layout_of(mlp))]
    [(1, 42), (1, 24)]
    """

    def __call__(self, layout: Layout) -> list[Tensor]:
        """Return one block matrix (1, n) of flat positions a layer, in the order of the model."""
        layers: dict[str, list[Tensor]] = {}
        for slot in layout.slots:
            layers.setdefault(slot.owner, []).append(slot.positions())
        return [torch.cat(parts)[None] for parts in layers.values()]

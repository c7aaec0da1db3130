"""One block a layer: the tensors that one leaf module owns."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bdhf.optim.layout import Layout, Slot


@dataclass(frozen=True)
class PerLayer:
    """One block per module that owns trainable tensors: a layer's weight with its bias.

    A stacked `nn.LSTM`, `nn.GRU` or `nn.RNN` is one block a layer, both directions together;
    `nn.MultiheadAttention` is one block. A tied tensor belongs to the first name that torch
    reports for it.

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
            layers.setdefault(_layer(slot), []).append(slot.positions())
        return [torch.cat(parts)[None] for parts in layers.values()]


def _layer(slot: Slot) -> str:
    """Name the layer that a tensor belongs to."""
    for path, module in slot.owners:
        if isinstance(module, nn.MultiheadAttention):
            return path
    path, module = slot.owners[-1]
    stacked = re.search(r"_l(\d+)(_reverse)?$", slot.name)
    if isinstance(module, nn.RNNBase) and stacked:
        return f"{path}.l{stacked[1]}"
    return path

"""One block a layer: the tensors that one leaf module owns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.vectors.layers import layers_of
from bdhf.optim.vectors.layout import Layout


@dataclass(frozen=True)
class PerLayer:
    """One block per module that owns trainable tensors: a layer's weight with its bias.

    A stacked `nn.LSTM`, `nn.GRU`, `nn.RNN` or `PeepholeLSTM` is one block a layer, both directions
    together; `nn.MultiheadAttention` is one block. The tensors of a parametrization (`weight_norm`)
    are in the block of the module that it parametrizes. A tied tensor belongs to the first name
    that torch reports for it.

    >>> from torch import nn
    >>> from bdhf.optim.vectors.layout import layout_of
    >>> mlp = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    >>> [tuple(rows.shape) for rows in PerLayer()(layout_of(mlp))]
    [(1, 42), (1, 24)]
    """

    def __call__(self, layout: Layout) -> list[Tensor]:
        """Return one block matrix (1, n) of flat positions a layer, in the order of the model."""
        return [
            torch.cat([member.slot.positions() for member in members])[None]
            for members in layers_of(layout).values()
        ]

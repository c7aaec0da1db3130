"""The layer of each trainable tensor, and the tensor's name in the layer's module."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from bdhf.nn import PeepholeLSTM
from bdhf.optim.vectors.layout import Layout, Slot

#: Modules of several layers, distinguished by the `_l{k}` in their tensors' names.
STACKED = (nn.RNNBase, PeepholeLSTM)


@dataclass(frozen=True)
class Member:
    """A trainable tensor as part of a layer."""

    layer: str  # the path of the module; a stack's with l{k} behind it: "encoder.l0"
    module: nn.Module
    tensor: str  # its name in the module: "weight", "bias_hh_l0", "out_proj.bias"
    slot: Slot


def layers_of(layout: Layout) -> dict[str, list[Member]]:
    """The tensors of every layer, by its name, in the order of the model.

    A layer is the module that owns the tensors, with four exceptions: a stacked `nn.LSTM`,
    `nn.GRU`, `nn.RNN` or `PeepholeLSTM` is a layer for each of its layers, both directions
    together; `nn.MultiheadAttention` is one layer with its output projection; what a
    parametrization owns (`weight_norm`'s length and direction) belongs to the module that it
    parametrizes; a tied tensor belongs to the first name that torch reports for it.

    >>> from bdhf.optim.vectors.layout import layout_of
    >>> model = nn.Sequential(nn.LSTM(2, 3, num_layers=2, bias=False), nn.Linear(3, 1))
    >>> for name, members in layers_of(layout_of(model)).items():
    ...     print(name, [member.tensor for member in members])
    0.l0 ['weight_ih_l0', 'weight_hh_l0']
    0.l1 ['weight_ih_l1', 'weight_hh_l1']
    1 ['weight', 'bias']
    """
    layers: dict[str, list[Member]] = {}
    for slot in layout.slots:
        member = _member(slot)
        layers.setdefault(member.layer, []).append(member)
    return layers


def _member(slot: Slot) -> Member:
    depth, parts = len(slot.owners) - 1, slot.name.split(".")
    for level, (_, module) in enumerate(slot.owners):
        if isinstance(module, ParametrizationList):  # <module>.parametrizations.<tensor>.<...>
            depth, parts = level - 2, [*parts[: level - 2], parts[level - 1]]
            break
    for level, (_, module) in enumerate(slot.owners[: depth + 1]):
        if isinstance(module, nn.MultiheadAttention):
            depth = level
            break
    path, module = slot.owners[depth]
    tensor = ".".join(parts[depth:])
    stacked = re.search(r"_l(\d+)(_reverse)?$", tensor)
    if isinstance(module, STACKED) and stacked:
        path = f"{path}.l{stacked[1]}" if path else f"l{stacked[1]}"
    return Member(path, module, tensor, slot)

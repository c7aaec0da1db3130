"""Names of blocks for readers, from the tensors in each, and numbers of parameters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

from bdhf.optim.vectors.blocks import Blocks
from bdhf.optim.vectors.layers import layers_of
from bdhf.optim.vectors.layout import Layout

#: Indices of the tensors that a block touches.
Touched = tuple[int, ...]


@dataclass(frozen=True)
class BlockInfo:
    """Name and size of one block."""

    name: str
    parameters: int  # P_b
    share: float  # P_b / P


@dataclass(frozen=True)
class Description:
    """Name and size of every block, in block order; prints as a table.

    Consecutive blocks of equal size in the same tensors share a line of it.
    """

    blocks: tuple[BlockInfo, ...]

    def __iter__(self) -> Iterator[BlockInfo]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def __str__(self) -> str:
        lines = [("block", "parameters", "share")]
        for _, run in groupby(
            self.blocks, key=lambda block: (_parse(block.name)[0], block.parameters)
        ):
            lines.append(_line(list(run)))
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            f"{name:<{wide[0]}}  {size:>{wide[1]}}  {share:>{wide[2]}}"
            for name, size, share in lines
        )


def describe(blocks: Blocks) -> Description:
    """Name, number of parameters and share of every block.

    The name of a block of whole tensors is `all`, a layer (`0` for 0.weight and 0.bias), a module
    (`encoder` for all of encoder.*), one tensor (`0.weight`), or the first and the last tensor. A
    block that cuts tensors also has its number among the blocks in the same tensors: `0[3]`. Names
    are unique.

    >>> from torch import nn
    >>> from bdhf.optim.vectors.layout import layout_of
    >>> from bdhf.optim.partitions import PerLayer, PerNeuron
    >>> layout = layout_of(nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)))
    >>> [block.name for block in describe(Blocks.of(layout, PerLayer()(layout)))]
    ['0', '2']
    >>> print(describe(Blocks.of(layout, PerNeuron()(layout))))
    block        parameters   share
    0 units 0…6       7 × 6  63.64%
    2 units 0…2       3 × 8  36.36%
    """
    layout = blocks.layout
    numel = [slot.shape.numel() for slot in layout.slots]
    names = _names(layout, list(dict.fromkeys(block.slots for block in blocks.rows)))
    numbers: Counter[Touched] = Counter()
    infos: list[BlockInfo] = []
    for block in blocks.rows:
        name = names[block.slots]
        if block.size < sum(numel[slot] for slot in block.slots):
            name += f"[{numbers[block.slots]}]"
            numbers[block.slots] += 1
        infos.append(BlockInfo(name, block.size, block.size / layout.size))
    return Description(tuple(infos))


def _names(layout: Layout, sets: Sequence[Touched]) -> dict[Touched, str]:
    """A unique name for every set of tensors; equal names get the list of tensors."""
    layers = _layers(layout)
    names = {touched: _name(layout, touched, layers) for touched in sets}
    times = Counter(names.values())
    for touched, name in names.items():
        if times[name] > 1:
            listed = ", ".join(layout.slots[slot].name for slot in touched)
            names[touched] = f"{name} ({listed})"
    return names


def _layers(layout: Layout) -> dict[Touched, str]:
    """The names of the layers, by their tensors."""
    index = {slot.name: i for i, slot in enumerate(layout.slots)}
    return {
        tuple(index[member.slot.name] for member in members): name
        for name, members in layers_of(layout).items()
    }


def _name(layout: Layout, touched: Touched, layers: dict[Touched, str]) -> str:
    """The common name of some tensors."""
    tensors = [layout.slots[slot].name for slot in touched]
    if len(touched) == len(layout.slots):
        return "all"
    if len(touched) == 1:
        return tensors[0]
    if layers.get(touched):
        return layers[touched]
    levels = zip(*(name.split(".")[:-1] for name in tensors), strict=False)
    module = ".".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))
    if sum(slot.name.startswith(f"{module}.") for slot in layout.slots) == len(touched):
        return module
    return f"{tensors[0]} … {tensors[-1]}"


def _line(run: Sequence[BlockInfo]) -> tuple[str, str, str]:
    """One line of the table for blocks of equal size in the same tensors."""
    share = f"{sum(block.share for block in run):.2%}"
    if len(run) == 1:
        return run[0].name, str(run[0].parameters), share
    tensors, first = _parse(run[0].name)
    _, last = _parse(run[-1].name)
    return f"{tensors} units {first}…{last}", f"{len(run)} × {run[0].parameters}", share


def _parse(name: str) -> tuple[str, str]:
    """The tensors and the number in the name of a block: "0[3]" -> ("0", "3")."""
    parsed = re.fullmatch(r"(.*)\[(\d+)\]", name)
    return (parsed[1], parsed[2]) if parsed else (name, "")

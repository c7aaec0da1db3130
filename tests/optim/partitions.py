"""The partitions of the contract tests: every one of the table, and some of a user's own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import bdhf
from bdhf.experiments.parts import tables
from bdhf.optim import Partition
from bdhf.optim.vectors.layout import Layout


def halves(layout: Layout) -> Partition:
    """Two Groups, contiguous in depth, of about half the tensors each."""
    names = [slot.name for slot in layout.slots]
    middle = (len(names) + 1) // 2
    return bdhf.Groups([block for block in (names[:middle], names[middle:]) if block])


def thirds(layout: Layout) -> list[Tensor]:
    """Cut through tensors: every entry shuffled into three blocks."""
    order = torch.randperm(layout.size, generator=torch.Generator().manual_seed(0))
    return [part[None] for part in order.chunk(3)]


def pairs(layout: Layout) -> list[Tensor]:
    """Many rows in one block matrix, and a rest."""
    even = layout.size // 2 * 2
    matrices = [torch.arange(even).view(-1, 2)]
    return matrices if even == layout.size else [*matrices, torch.tensor([[even]])]


#: Partitions whose arguments depend on the model.
NEEDS_ARGUMENTS: dict[str, Callable[[Layout], Partition]] = {
    "groups": halves,
    "random": lambda layout: bdhf.Random(like=bdhf.PerLayer(), seed=1),
    "blend": lambda layout: bdhf.Blend(bdhf.PerLayer(), alpha=0.3),
}

PARTITIONS: dict[str, Callable[[Layout], Partition]] = {
    **{
        name: NEEDS_ARGUMENTS.get(name, lambda layout, part=part: part())
        for name, part in tables.PARTITIONS.items()
    },
    "thirds": lambda layout: thirds,
    "pairs": lambda layout: pairs,
}

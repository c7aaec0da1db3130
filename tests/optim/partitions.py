"""The table of partitions for the contract tests: name -> partition for a layout."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import bdhf
from bdhf.optim import Partition
from bdhf.optim.layout import Layout


def halves(layout: Layout) -> Partition:
    """Two Groups, contiguous in depth, of about half the tensors each."""
    names = [slot.name for slot in layout.slots]
    middle = (len(names) + 1) // 2
    return bdhf.Groups([block for block in (names[:middle], names[middle:]) if block])


def cutting(layout: Layout) -> Partition:
    """A user's own partition that cuts through tensors: every third entry, out of order."""

    def thirds(layout: Layout) -> list[Tensor]:
        order = torch.randperm(layout.size, generator=torch.Generator().manual_seed(0))
        return [part[None] for part in order.chunk(3)]

    return thirds


def rows_of_pairs(layout: Layout) -> Partition:
    """A user's own partition with many rows in one block matrix, and a rest."""

    def pairs(layout: Layout) -> list[Tensor]:
        even = layout.size // 2 * 2
        matrices = [torch.arange(even).view(-1, 2)]
        return matrices if even == layout.size else [*matrices, torch.tensor([[even]])]

    return pairs


PARTITIONS: dict[str, Callable[[Layout], Partition]] = {
    "full": lambda layout: bdhf.Full(),
    "per_layer": lambda layout: bdhf.PerLayer(),
    "groups": halves,
    "cutting": cutting,
    "rows_of_pairs": rows_of_pairs,
}

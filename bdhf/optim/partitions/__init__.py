"""Partitions: a layout in, block matrices of flat positions out. One file each.

A partition is any callable `layout -> list[LongTensor (rows, n)]`; `Blocks.of` checks what it
returns.
"""

from typing import Protocol

from torch import Tensor

from bdhf.optim.layout import Layout
from bdhf.optim.partitions.full import Full
from bdhf.optim.partitions.groups import Groups
from bdhf.optim.partitions.per_layer import PerLayer


class Partition(Protocol):
    """Cuts a layout into blocks."""

    def __call__(self, layout: Layout) -> list[Tensor]:
        """Return block matrices (rows, n) of flat positions; one block a row."""


__all__ = ["Full", "Groups", "Partition", "PerLayer"]

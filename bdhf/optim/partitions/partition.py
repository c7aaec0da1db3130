"""The interface of a partition."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from bdhf.optim.vectors.layout import Layout


class Partition(Protocol):
    """Cuts a layout into blocks."""

    def __call__(self, layout: Layout) -> list[Tensor]:
        """Return block matrices (rows, n) of flat positions; one block a row."""

"""Where each parameter lies in a vector in block order: as a strided view, wherever it can.

A block of a neuron is a row of a weight and an entry of a bias, so that the weight is the vector
seen with another stride: nothing needs to be copied into another order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.layout import Blocks


@dataclass(frozen=True)
class Strided:
    """One parameter within a vector in block order."""

    shape: torch.Size
    strides: tuple[int, ...]
    offset: int
    positions: Tensor | None  # of its entries, where no strides give them

    def of(self, vector: Tensor) -> Tensor:
        """The entries, in the shape of the parameter; (P,) -> shape."""
        if self.positions is not None:
            return vector[self.positions]
        return vector.as_strided(self.shape, self.strides, vector.storage_offset() + self.offset)

    def write(self, vector: Tensor, values: Tensor) -> None:
        """Set the entries in place."""
        if self.positions is None:
            self.of(vector).copy_(values)
        else:
            vector[self.positions] = values


def strided(blocks: Blocks, device: torch.device) -> tuple[Strided, ...]:
    """Find every parameter of a layout within vectors in block order."""
    size = blocks.layout.size
    position = torch.arange(size)
    if blocks.order is not None:
        position[blocks.order.cpu()] = torch.arange(size)
    slots = blocks.layout.slots
    parts = (position[slot.start : slot.stop].view(slot.shape) for slot in slots)
    return tuple(_strided(part, device) for part in parts)


def _strided(position: Tensor, device: torch.device) -> Strided:
    offset = int(position.reshape(-1)[0])
    strides = tuple(_stride(position, d) for d in range(position.dim()))
    regular = torch.full_like(position, offset)
    for index, stride in zip(_indices(position.shape), strides, strict=True):
        regular += stride * index
    irregular = not torch.equal(regular, position) or any(stride < 0 for stride in strides)
    return Strided(position.shape, strides, offset, position.to(device) if irregular else None)


def _stride(position: Tensor, dim: int) -> int:
    """The distance of the first two entries along a dimension; 0 where there is one."""
    first = position[tuple(slice(None) if d == dim else 0 for d in range(position.dim()))]
    return int(first[1] - first[0]) if len(first) > 1 else 0


def _indices(shape: torch.Size) -> Iterable[Tensor]:
    """The index along every dimension, broadcast to the shape."""
    for d, n in enumerate(shape):
        yield torch.arange(n).view([n if e == d else 1 for e in range(len(shape))])

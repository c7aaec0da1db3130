"""The position of each parameter in a vector in block order: a strided view where possible.

A block of a neuron is a row of a weight and an entry of a bias, so the weight is a strided view of
the vector, and no entries are reordered one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Strided:
    """One parameter within a vector in block order, or within each of several, (..., P)."""

    shape: torch.Size
    strides: tuple[int, ...]
    offset: int
    positions: Tensor | None  # of its entries, where they are not strided

    def of(self, vector: Tensor) -> Tensor:
        """The entries, in the shape of the parameter; (..., P) -> (..., *shape)."""
        if self.positions is not None:
            return vector[..., self.positions]
        *ahead, step = vector.stride()
        strides = (*ahead, *(step * stride for stride in self.strides))
        start = vector.storage_offset() + step * self.offset
        return vector.as_strided((*vector.shape[:-1], *self.shape), strides, start)

    def at(self, positions: Tensor) -> Strided:
        """The same view, with its positions on another device where they are needed."""
        return self if self.positions is None else replace(self, positions=positions)

    def write(self, vector: Tensor, values: Tensor) -> None:
        """Set the entries in place; (..., P), (..., *shape)."""
        if self.positions is None:
            self.of(vector).copy_(values)
        else:
            vector[..., self.positions] = values


def strided(positions: Sequence[Tensor]) -> tuple[Strided, ...]:
    """Views of parameters in vectors, from the position of every entry, in their shapes.

    Positions that are not strided are kept as tensors.
    """
    return tuple(_strided(position) for position in positions)


def _strided(position: Tensor) -> Strided:
    offset = int(position.reshape(-1)[0])
    strides = tuple(_stride(position, d) for d in range(position.dim()))
    regular = torch.full_like(position, offset)
    for index, stride in zip(_indices(position.shape), strides, strict=True):
        regular += stride * index
    irregular = not torch.equal(regular, position) or any(stride < 0 for stride in strides)
    return Strided(position.shape, strides, offset, position if irregular else None)


def _stride(position: Tensor, dim: int) -> int:
    """The distance of the first two entries along a dimension; 0 where there is one."""
    first = position[tuple(slice(None) if d == dim else 0 for d in range(position.dim()))]
    return int(first[1] - first[0]) if len(first) > 1 else 0


def _indices(shape: torch.Size) -> Iterable[Tensor]:
    """The index along every dimension, broadcast to the shape."""
    for d, n in enumerate(shape):
        yield torch.arange(n).view([n if e == d else 1 for e in range(len(shape))])

"""Where a tensor lies in memory, which identifies it below autograd."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

#: Where a tensor lies: storage, offset, shape, strides and dtype.
StorageView = tuple[int, int | torch.SymInt, torch.Size, tuple[int, ...], torch.dtype]


def storage_of(tensor: Tensor) -> int | None:
    """The address of a tensor's memory.

    None for a tensor without memory: sparse, nested, masked, wrapped by torch.func, or without
    entries.
    """
    try:
        return tensor.untyped_storage().data_ptr() or None
    except (RuntimeError, TypeError, AttributeError):  # NotImplementedError is a RuntimeError
        return None


def view_of(tensor: Tensor) -> StorageView | None:
    """Where a tensor lies; None for a tensor without memory."""
    storage = storage_of(tensor)
    if storage is None:
        return None
    return storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def entries_of(view: StorageView) -> Hashable:
    """Where the entries lie: without the strides of axes of length 1, which have no effect."""
    storage, offset, shape, stride, dtype = view
    steps = tuple(step for length, step in zip(shape, stride, strict=True) if length > 1)
    return storage, offset, shape, steps, dtype

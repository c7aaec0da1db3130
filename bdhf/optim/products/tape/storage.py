"""Where a tensor lies in memory: what it is known by below autograd, if it has memory at all."""

from __future__ import annotations

from torch import Tensor


def storage_of(tensor: Tensor) -> int | None:
    """The address of a tensor's memory.

    None for a tensor that has none of its own: sparse, nested, masked, wrapped by torch.func, or
    without entries.
    """
    try:
        return tensor.untyped_storage().data_ptr() or None
    except (RuntimeError, TypeError, AttributeError):  # NotImplementedError is a RuntimeError
        return None

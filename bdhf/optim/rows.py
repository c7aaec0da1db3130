"""Arithmetic on the rows of a matrix, without a temporary as long as the matrix.

    ⟨a_i, b_i⟩   and   a_i ← 0   for the rows i, each of them a block

Nothing here waits for the device.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

#: Entries that an inner product holds at a time: what stays in the cache of a core, and elsewhere
#: as many as are worth a kernel.
SLAB_CPU, SLAB = 2**18, 2**24

#: Integers as wide as a number of so many bytes.
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def dots(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """⟨a_i, b_i⟩ for the rows i of two matrices, accumulated in `dtype`; (rows, n) -> (rows,).

    Pairwise sums, one slab after the other. A BLAS dot takes two thirds of the time, but sums up
    in a few accumulators: 1e-4 off in float32 after three million entries.
    """
    slab = SLAB_CPU if a.device.type == "cpu" else SLAB
    if a.numel() <= slab:
        return (a.to(dtype) * b).sum(1)
    if len(a) > 1:
        rows = max(1, slab // a.shape[1])
        parts = zip(a.split(rows), b.split(rows), strict=True)
        return torch.cat([dots(u, v, dtype) for u, v in parts])
    parts = zip(a.split(slab, 1), b.split(slab, 1), strict=True)
    return reduce(torch.add, [dots(u, v, dtype) for u, v in parts])


def zero_rows_(matrix: Tensor, mask: Tensor) -> None:
    """In place: set the rows that `mask` (rows,) marks to zero, whatever is in them.

    By an AND with no bits or all: NaN · 0 is NaN, and a masked fill takes three times as long.
    """
    bits = matrix.view(_BITS[matrix.element_size()])
    bits.bitwise_and_(mask.logical_not().to(bits.dtype).neg_().unsqueeze(1))

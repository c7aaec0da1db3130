"""Arithmetic on the rows of a matrix, without a temporary as long as the matrix.

    ⟨a_i, b_i⟩   and   a_i ← a_i + s_i b_i   and   a_i ← 0   for the rows i, each of them a block

Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

#: Entries per step: on the CPU as many as stay in the cache of a core between two operators, and
#: elsewhere as many as are worth a kernel.
SLAB_CPU, SLAB = 2**19, 2**24

#: Integers of so many bytes.
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def dots(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """⟨a_i, b_i⟩ for the rows i of two matrices, accumulated in `dtype`; (rows, n) -> (rows,).

    Pairwise sums, slab by slab. A BLAS dot takes two thirds of the time, but sums in a few
    accumulators, with an error of 1e-4 in float32 after three million entries.
    """
    return _by_slabs(lambda u, v: (u.to(dtype) * v).sum(1), a, b)


def add_scaled_dots_(y: Tensor, scale: Tensor, x: Tensor, z: Tensor, dtype: torch.dtype) -> Tensor:
    """In place y_i += s_i x_i, and then ⟨y_i, z_i⟩ as in `dots`, in one pass over memory.

    `scale` is (rows, 1); `z` may be `x` or `y`.
    """
    return _by_slabs(lambda u, s, v, w: (u.addcmul_(s, v).to(dtype) * w).sum(1), y, scale, x, z)


def _by_slabs(work: Callable[..., Tensor], *matrices: Tensor) -> Tensor:
    """`work` on few entries of all matrices at a time, added up within every row; -> (rows,).

    A matrix is (rows, n), or (rows, 1) for one coefficient per row.
    """
    n = matrices[0].shape[1]
    slab = SLAB_CPU if matrices[0].device.type == "cpu" else SLAB
    sums = []
    for rows in zip(*(matrix.split(max(1, slab // n)) for matrix in matrices), strict=True):
        parts = [matrix.split(slab, 1) for matrix in rows]
        pieces = max(map(len, parts))  # 1, unless it is a single row
        every = zip(*(part * (pieces // len(part)) for part in parts), strict=True)
        sums.append(reduce(torch.add, [work(*few) for few in every]))
    return torch.cat(sums)


def zero_rows_(matrix: Tensor, mask: Tensor) -> None:
    """In place: set the rows that `mask` (rows,) marks to zero, whatever is in them.

    By an AND with all bits or none: NaN · 0 is NaN, and a masked fill takes three times as long.
    """
    bits = matrix.view(_BITS[matrix.element_size()])
    bits.bitwise_and_(mask.logical_not().to(bits.dtype).neg_().unsqueeze(1))

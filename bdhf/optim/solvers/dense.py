"""The blocks of a matrix as dense matrices, from products with unit vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bdhf.optim.vectors.blocks import Blocks


def dense_blocks(
    blocks: Blocks, product: Callable[[Tensor, Sequence[int] | None], Tensor], like: Tensor
) -> list[Tensor]:
    """One tensor (rows, n, n) per block matrix; dtype and device are those of `like` (P,).

    One product gives one column of every block, so it takes as many as the largest block has
    parameters, and n products with a block of n.
    """
    dense = [like.new_empty(rows, n, n) for rows, n in blocks.shapes]
    for column in range(max(n for _, n in blocks.shapes)):
        unit = torch.zeros_like(like)
        for matrix in blocks.matrices(unit):
            if column < matrix.shape[1]:
                matrix[:, column] = 1.0
        active = [b for b, block in enumerate(blocks.rows) if column < block.size]
        result = product(unit, None if len(active) == len(blocks.rows) else active)
        for target, values in zip(dense, blocks.matrices(result), strict=True):
            if column < target.shape[1]:
                target[:, :, column] = values
    return dense

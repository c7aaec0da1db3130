"""What an update will cost, in gradients, before it is paid: counted in FLOPs on a small batch.

Blocks that touch the same tensors cost the same, so one sweep for each such set tells all.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch

from bdhf.optim.cutting import cut
from bdhf.optim.flops import Flops
from bdhf.optim.layout import Blocks
from bdhf.optim.partitions import Full
from bdhf.optim.products import BlockProduct

#: One product of all blocks that costs more gradients than this is worth a warning.
EXPENSIVE = 50.0


class CostWarning(UserWarning):
    """A partition whose products cost many gradients."""


@dataclass(frozen=True)
class Sweeps:
    """What products cost, in gradients on the same batch."""

    blocks: tuple[float, ...]  # a product with each block
    sizes: tuple[int, ...]  # parameters of each block
    whole: float  # a product with the full matrix
    blended: float  # what a blend adds to each product
    factor_rows: float  # rows of the factor a sample; NaN where there is none
    gradient: float  # FLOPs of the gradient a sample

    @property
    def product(self) -> float:
        """One product with every block."""
        return sum(self.blocks) + self.blended


def sweeps(product: BlockProduct, flops: Flops, samples: int) -> Sweeps:
    """Count what products cost; `flops` is the meter of a linearisation that has just been made."""
    gradient = flops.spent
    own, inner = _own_and_blended(product, flops)
    whole = _costs(product, cut(product.blocks.layout, Full()), flops)[0]
    try:
        rows = product.factor_rows / samples
    except ValueError:  # an indefinite matrix
        rows = math.nan
    return Sweeps(
        blocks=tuple(cost / gradient if gradient else math.nan for cost in own),
        sizes=tuple(block.size for block in product.blocks.rows),
        whole=whole / gradient if gradient else math.nan,
        blended=inner / gradient if gradient else math.nan,
        factor_rows=rows,
        gradient=gradient / samples,
    )


def _own_and_blended(product: BlockProduct, flops: Flops) -> tuple[list[int], int]:
    """FLOPs of a product with each block, and what a blend adds to a product of all."""
    blend = product.blocks.blend
    inner = sum(_costs(product, blend.inner, flops)) if blend is not None else 0
    return _costs(product, product.blocks, flops), inner


def _costs(product: BlockProduct, blocks: Blocks, flops: Flops) -> list[int]:
    """FLOPs of a product with each block."""
    v = torch.zeros_like(product.gradient)
    known: dict[tuple[int, ...], int] = {}
    for index, block in enumerate(blocks.rows):
        if block.slots not in known:
            before = flops.spent
            product.cut_to(blocks, v, [index])
            known[block.slots] = flops.spent - before
    return [known[block.slots] for block in blocks.rows]


def warn_if_expensive(product: BlockProduct, flops: Flops) -> None:
    """Warn when one product of all blocks costs more than `EXPENSIVE` gradients.

    `flops` is the meter of the linearisation, which has just been made.
    """
    blend = product.blocks.blend
    blocks = len(product.blocks.rows) + (len(blend.inner.rows) if blend is not None else 0)
    if blocks < EXPENSIVE / 2:
        return
    gradient = flops.spent
    own, inner = _own_and_blended(product, flops)
    cost = (sum(own) + inner) / gradient if gradient else math.nan
    if cost > EXPENSIVE:
        warnings.warn(
            f"one product of all {blocks:,} blocks costs about {cost:,.0f} gradients, since every "
            "block is a sweep of its own: a coarser partition (PerLayer, Groups) is cheaper, and "
            "`bdhf plan --cost` estimates an ablation before it is run",
            CostWarning,
            stacklevel=4,
        )

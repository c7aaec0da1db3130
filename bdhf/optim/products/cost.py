"""What an update will cost, in gradients: counted in FLOPs on a small batch before it runs.

Blocks that touch the same tensors cost the same, so one sweep for each such set is enough; a sweep
that takes all blocks is counted once.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import torch

from bdhf.optim.partitions import Full
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products.product import BlockProduct
from bdhf.optim.products.site_samples import SiteSize
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.vectors.blocks import Blocks

#: One product with all blocks that costs more gradients than this gets a warning.
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
    setup: float  # what is computed once for all products, without the gradient
    factor_rows: float  # rows of the factor a sample; NaN where there is none
    gradient: float  # FLOPs of the gradient a sample
    sites: tuple[SiteSize, ...] = ()  # where a preconditioner is made of them

    @property
    def product(self) -> float:
        """One product with every block."""
        return sum(self.blocks) + self.blended


def sweeps(product: BlockProduct, flops: Flops, samples: int) -> Sweeps:
    """Count what products cost; `flops` has metered the linearisation and nothing else."""
    gradient, setup = _linearised(product, flops)
    own, inner = _own_and_blended(product, flops)
    full = flops.once("full", lambda: cut(product.blocks.layout, Full()))
    whole = _costs(product, full, flops)[0]
    try:
        rows = product.factor_rows / samples
    except ValueError:  # an indefinite matrix
        rows = math.nan
    return Sweeps(
        blocks=tuple(cost / gradient if gradient else math.nan for cost in own),
        sizes=tuple(block.size for block in product.blocks.rows),
        whole=whole / gradient if gradient else math.nan,
        blended=inner / gradient if gradient else math.nan,
        setup=setup / gradient if gradient else math.nan,
        factor_rows=rows,
        gradient=gradient / samples,
    )


def with_term(cost: Sweeps, term: Sweeps) -> Sweeps:
    """The cost with another matrix added, which has its own linearisation.

    A product of it alone follows each solve. Both are in gradients, so `term` is converted.
    """
    unit = term.gradient / cost.gradient if cost.gradient else math.nan
    once = 1 + term.setup + term.product
    return replace(
        cost,
        blocks=tuple(a + unit * b for a, b in zip(cost.blocks, term.blocks, strict=True)),
        whole=cost.whole + unit * term.whole,
        blended=cost.blended + unit * term.blended,
        setup=cost.setup + unit * once,
        factor_rows=cost.factor_rows + term.factor_rows,
    )


def _linearised(product: BlockProduct, flops: Flops) -> tuple[int, int]:
    """FLOPs of the gradient, and of the set-up of the products."""
    gradient = sum(flops.cost(("linearise", part.shapes)) for _, part in product.parts)
    return gradient, flops.spent - gradient


def _own_and_blended(product: BlockProduct, flops: Flops) -> tuple[list[float], float]:
    """FLOPs of a product with each block, and what a blend adds to a product with all."""
    blend = product.blocks.blend
    inner = sum(_costs(product, blend.inner, flops)) if blend is not None else 0
    return _costs(product, product.blocks, flops), inner


def _costs(product: BlockProduct, blocks: Blocks, flops: Flops) -> list[float]:
    """FLOPs of a product with each block; its share by size where one sweep takes all."""
    v = torch.zeros_like(product.gradient)
    if product.together(blocks):
        before = flops.spent
        product.cut_to(blocks, v)
        share = (flops.spent - before) / blocks.layout.size
        return [share * block.size for block in blocks.rows]
    cost_by_slots: dict[tuple[int, ...], float] = {}
    for index, block in enumerate(blocks.rows):
        if block.slots not in cost_by_slots:
            before = flops.spent
            product.cut_to(blocks, v, [index])
            cost_by_slots[block.slots] = flops.spent - before
    return [cost_by_slots[block.slots] for block in blocks.rows]


def warn_if_expensive(product: BlockProduct, flops: Flops) -> None:
    """Warn when one product with all blocks costs more than `EXPENSIVE` gradients.

    `flops` has metered the linearisation and nothing else.
    """
    blend = product.blocks.blend
    blocks = len(product.blocks.rows) + (len(blend.inner.rows) if blend is not None else 0)
    if blocks < EXPENSIVE / 2:
        return
    gradient, _ = _linearised(product, flops)
    own, inner = _own_and_blended(product, flops)
    cost = (sum(own) + inner) / gradient if gradient else math.nan
    if cost > EXPENSIVE:
        warnings.warn(
            f"one product with all {blocks:,} blocks costs about {cost:,.0f} gradients, since each "
            f"block takes its own sweep ({product.why}): a coarser partition (PerLayer, Groups) or "
            "a curvature of fewer columns (Fisher) is cheaper; `bdhf plan --cost` estimates an "
            "ablation before it runs",
            CostWarning,
            stacklevel=4,
        )

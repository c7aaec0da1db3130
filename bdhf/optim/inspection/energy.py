"""The share of a matrix outside its blocks: how far it is from block-diagonal.

    e = ‖G - G_block‖_F ÷ ‖G‖_F = √(off ÷ (off + on)),
    off = ‖G - G_block‖²_F = E‖(G - G_block) v‖²,   on = ‖G_block‖²_F = E‖G_block v‖²

for random signs v (Hutchinson 1990). ‖G‖²_F is off + on: G_block and G - G_block have no entry in
common, so that the squares of the entries of G are those of the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.partitions import Full
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import BlockProduct
from bdhf.optim.torch_support.student import two_sided_quantile

#: Separates the signs from the draws of a curvature with the same seed: they must be independent.
_STREAM = 0x632BE59BD9B4E019

#: The fewest probes for an interval: its quantile has half of n - 1 degrees of freedom.
FEWEST = 3


@dataclass(frozen=True)
class Energy:
    """The result of every probe, outside the blocks and in them."""

    off: Tensor  # ‖(G - G_block) v‖², (probes,), float64 on the CPU
    on: Tensor  # ‖G_block v‖², (probes,), likewise

    @property
    def ratio(self) -> float:
        """√(Σ off ÷ Σ (off + on)), in [0, 1]; NaN where both are zero."""
        off, on = float(self.off.sum()), float(self.on.sum())
        return math.sqrt(off / (off + on)) if off + on else math.nan

    def interval(self, level: float) -> tuple[float, float]:
        """The ends of a confidence interval of `level` around `ratio`, in [0, 1].

        By the jackknife on log(Σ off ÷ Σ on), since it is nearer to normal than the ratio and has
        no bounds. Squares of products have heavy tails, at an excess kurtosis of 2 a variance of n
        of them has about (n - 1)/2 degrees of freedom, and Student's t has as many here. [0, 1]
        where all of one part comes from a single probe. NaN where both parts are zero. Raises
        ValueError for fewer than three probes and a level outside (0, 1).
        """
        probes = len(self.off)
        if probes < FEWEST:
            raise ValueError(f"an interval needs at least {FEWEST} probes; got {probes}")
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, as 0.95 does; got {level}")
        ratio = self.ratio
        if not 0 < ratio < 1:
            return ratio, ratio
        centre = float((self.off.sum() / self.on.sum()).log())
        rests = [(part.sum() - part).clamp_min(0.0) for part in (self.off, self.on)]
        without = (rests[0] / rests[1]).log()  # log-ratio of all probes but one, (probes,)
        error = math.sqrt((probes - 1) * float(without.var(correction=0)))
        if not math.isfinite(error):
            return 0.0, 1.0
        reach = error * two_sided_quantile(level, (probes - 1) / 2)
        return _root_share(centre - reach), _root_share(centre + reach)


def off_block_energy(product: BlockProduct, probes: int, seed: int) -> Energy:
    """Probe G and G cut to the blocks; those of the inner partition for a blend.

    A blend is no cut: α G + (1 - α) G_inner and its difference to G share entries.
    Raises ValueError for fewer than one probe.
    """
    if probes < 1:
        raise ValueError(f"off_block_energy needs at least one probe; got {probes}")
    size = product.blocks.layout.size
    generator = torch.Generator().manual_seed((seed + _STREAM) % 2**63)
    draws = (torch.randint(0, 2, (size,), generator=generator) * 2 - 1 for _ in range(probes))
    squares = [squares_of(product, signs) for signs in draws]
    return Energy(*torch.tensor(squares, dtype=torch.float64).unbind(1))


def squares_of(product: BlockProduct, v: Tensor) -> tuple[float, float]:
    """‖(G - G_block) v‖² and ‖G_block v‖² for one v, (P,) in the order of the parameters."""
    layout, blend = product.blocks.layout, product.blocks.blend
    blocks = product.blocks if blend is None else blend.inner
    v = v.to(product.gradient)
    block = blocks.scatter(product.cut_to(blocks, blocks.gather(v)))
    whole = product.cut_to(cut(layout, Full()), v)  # in the identity no tensor has a device
    return float((whole - block).square().sum()), float(block.square().sum())


def _root_share(log_ratio: float) -> float:
    """√(r ÷ (1 + r)) of log r."""
    return math.sqrt(0.5 * (1 + math.tanh(log_ratio / 2)))

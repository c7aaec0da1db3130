"""How much of a matrix lies outside its blocks: is it block-diagonal?"""

from __future__ import annotations

import math

import torch

from bdhf.optim.cutting import cut
from bdhf.optim.partitions import Full
from bdhf.optim.products import BlockProduct


def off_block_energy(product: BlockProduct, probes: int, seed: int) -> float:
    """‖G - G_block‖_F / ‖G‖_F by random signs v, since E‖Av‖² = ‖A‖²_F (Hutchinson 1990).

    NaN where G is zero. Raises ValueError for fewer than one probe.
    """
    if probes < 1:
        raise ValueError(f"off_block_energy needs at least one probe; got {probes}")
    layout = product.blocks.layout
    full = cut(layout, Full())  # the identity: nothing in it has a device
    generator = torch.Generator().manual_seed(seed)
    off = total = 0.0
    for _ in range(probes):
        signs = torch.randint(0, 2, (layout.size,), generator=generator) * 2 - 1
        v = signs.to(product.gradient)
        whole = product.cut_to(full, v)
        block = product.blocks.scatter(product(product.blocks.gather(v)))
        off += float((whole - block).square().sum())
        total += float(whole.square().sum())
    return math.sqrt(off / total) if total else math.nan

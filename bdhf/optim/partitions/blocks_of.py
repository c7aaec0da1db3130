"""A partition applied to a model's layout: the blocks of products and solves."""

from __future__ import annotations

from dataclasses import replace

from bdhf.optim.partitions import Blend, Partition
from bdhf.optim.refusals.refusals import refuse_no_parts
from bdhf.optim.vectors.blocks import Blending, Blocks
from bdhf.optim.vectors.layout import Layout


def cut(layout: Layout, partition: Partition) -> Blocks:
    """Apply a partition.

    Raises ValueError unless it covers every trainable entry once, and ModelTypeError for a name or
    a class in place of a partition.
    """
    refuse_no_parts(partition=partition)
    blocks = Blocks.of(layout, partition(layout))
    if not isinstance(partition, Blend):
        return blocks
    refuse_no_parts(partition=partition.partition)
    inner = Blocks.of(layout, partition.partition(layout))
    return replace(blocks, blend=Blending(inner, partition.alpha))

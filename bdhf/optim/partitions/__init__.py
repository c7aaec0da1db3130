"""Partitions: a layout in, block matrices of flat positions out. One file each.

A partition is any callable `layout -> list[LongTensor (rows, n)]`; `Blocks.of` checks what it
returns.
"""

from bdhf.optim.partitions.blend import Blend
from bdhf.optim.partitions.full import Full
from bdhf.optim.partitions.groups import Groups
from bdhf.optim.partitions.partition import Partition
from bdhf.optim.partitions.per_layer import PerLayer
from bdhf.optim.partitions.per_neuron import PerNeuron
from bdhf.optim.partitions.random import Random

__all__ = ["Blend", "Full", "Groups", "Partition", "PerLayer", "PerNeuron", "Random"]

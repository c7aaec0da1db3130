"""Blocks without structure: the control for every partition that has one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from bdhf.optim.partitions.partition import Partition
from bdhf.optim.vectors.blocks import Blocks
from bdhf.optim.vectors.layout import Layout


@dataclass(frozen=True)
class Random:
    """All entries shuffled into blocks: of equal size (±1), or of the sizes of another partition.

    `Random(blocks=2, seed=0)` has two halves; `Random(like=PerLayer(), seed=0)` has blocks of the
    sizes of the layers, in their order: it differs from `PerLayer()` in structure alone.
    `Random()` has two `blocks`. The shuffle is drawn from its own Generator, seeded by `seed`;
    `like` is the partition whose sizes are taken.

    Raises ValueError for both `blocks` and `like`, for fewer blocks than one or more than there
    are parameters, and for a negative seed.

    >>> from torch import nn
    >>> from bdhf.optim.vectors.layout import layout_of
    >>> mlp = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    >>> [tuple(rows.shape) for rows in Random(blocks=4, seed=0)(layout_of(mlp))]
    [(2, 17), (2, 16)]
    """

    blocks: int | None = None  # None: 2, or as many as `like` has
    like: Partition | None = None  # whose sizes to take
    seed: int = 0

    def __post_init__(self) -> None:
        if self.blocks is not None and self.like is not None:
            raise ValueError(
                f"Random takes blocks or like, not both; got blocks={self.blocks!r} and "
                f"like={self.like!r}: leave one out"
            )
        if self.blocks is None and self.like is None:
            object.__setattr__(self, "blocks", 2)
        if self.blocks is not None and self.blocks < 1:
            raise ValueError(f"blocks of Random must be at least 1; got {self.blocks!r}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed of Random must be in [0, 2^64); got {self.seed!r}")

    def __call__(self, layout: Layout) -> list[Tensor]:
        """Return a block matrix (rows, n) per run of blocks of the same size; rows ascend."""
        generator = torch.Generator().manual_seed(self.seed)
        parts = torch.randperm(layout.size, generator=generator).split(self._sizes(layout))
        return [torch.stack(list(run)).sort(dim=1).values for _, run in groupby(parts, key=len)]

    def _sizes(self, layout: Layout) -> list[int]:
        if self.like is not None:
            shapes = Blocks.of(layout, self.like(layout)).shapes
            return [n for rows, n in shapes for _ in range(rows)]
        blocks = self.blocks or 2
        if blocks > layout.size:
            raise ValueError(
                f"blocks of Random is {blocks}, but the model has {layout.size} trainable "
                f"parameters: give at most {layout.size}"
            )
        small, larger = divmod(layout.size, blocks)
        return [small + 1] * larger + [small] * (blocks - larger)

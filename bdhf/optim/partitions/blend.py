"""The full matrix with its cross-block part scaled, between all and nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.partitions.partition import Partition
from bdhf.optim.vectors.layout import Layout


@dataclass(frozen=True)
class Blend:
    """The full matrix with its cross-block part scaled by alpha: `Blend(PerLayer(), alpha=0.5)`.

        α·G + (1 − α)·blockdiag(G),  0 ≤ α ≤ 1

    `alpha` 1 is the matrix of `Full`, 0 the matrix of `partition`. It is always solved as ONE
    system, so that only the matrix varies along alpha; the number of Krylov spaces does not.
    Comparing `Blend(p, 0)` with `p` isolates what separate solves contribute.

    Raises ValueError for an alpha outside [0, 1] and for a Blend inside a Blend.

    >>> from torch import nn
    >>> from bdhf.optim.vectors.layout import layout_of
    >>> from bdhf.optim.partitions.per_layer import PerLayer
    >>> mlp = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    >>> [tuple(rows.shape) for rows in Blend(PerLayer(), alpha=0.5)(layout_of(mlp))]
    [(1, 66)]
    """

    partition: Partition  # whose blocks keep their weight
    alpha: float

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(
                f"alpha of Blend must be in [0, 1], 0 the matrix of its partition and 1 the full "
                f"one; got {self.alpha!r}"
            )
        if isinstance(self.partition, Blend):
            raise ValueError(
                "partition of Blend must not be a Blend itself: "
                "give the partition of the inner one, and a single alpha"
            )

    def __call__(self, layout: Layout) -> list[Tensor]:
        """Return one block matrix (1, P) of flat positions: the blend is solved as one system."""
        return [torch.arange(layout.size)[None]]

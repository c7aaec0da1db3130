"""Tikhonov damping: how λ in (G + λI) d = -g starts, and how it changes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Damping(Protocol):
    """A rule for λ; its value lives in the optimizer's param_groups, under "damping"."""

    @property
    def initial(self) -> float:
        """λ before the first update."""

    def update(self, damping: float, reduction_ratio: float) -> float:
        """λ for the next update, from the actual ÷ predicted change of the loss."""


@dataclass(frozen=True)
class Constant:
    """A fixed λ ≥ 0, as in Zhang et al. (2017).

    >>> Constant(1e-3).update(1e-3, reduction_ratio=0.1)
    0.001
    """

    value: float = 1e-3

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value >= 0):
            raise ValueError(f"Constant damping must be finite and at least 0; got {self.value}")

    @property
    def initial(self) -> float:
        """λ before the first update."""
        return self.value

    def update(self, damping: float, reduction_ratio: float) -> float:
        """Leave λ as it is."""
        return damping

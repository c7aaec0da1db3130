"""Tikhonov damping: how λ in (G + λI) d = -g starts, and how it changes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

#: Bounds of λ, so that no rule reaches 0 or infinity.
LIMITS = (1e-12, 1e12)


class Damping(Protocol):
    """A rule for λ; its value is in the optimizer's param_groups, under "damping"."""

    @property
    def initial(self) -> float:
        """λ before the first update."""

    @property
    def per_block(self) -> bool:
        """Whether `update` gets the reduction ratio of its own param_group alone."""

    def update(self, damping: float, reduction_ratio: float) -> float:
        """λ for the next update, from the actual ÷ predicted change of the loss."""


@dataclass(frozen=True)
class Constant:
    """A fixed λ = `value` ≥ 0, as in Zhang et al. (2017).

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

    @property
    def per_block(self) -> bool:
        """No ratio is used."""
        return False

    def update(self, damping: float, reduction_ratio: float) -> float:
        """Leave λ unchanged."""
        return damping


@dataclass(frozen=True)
class LevenbergMarquardt:
    """λ × 3/2 where the reduction ratio is below ¼, × 2/3 where it is above ¾ (Martens 2010, §4.1).

    The ratio is that of the applied step, on the curvature batch, without damping. NaN (a rejected
    or diverging step) raises λ. The first λ is `initial`. `per_block` keeps one λ per param_group,
    at the cost of one loss evaluation each; blocks that cut the same tensors share one. Raises
    ValueError for an initial λ that is not above 0.

    >>> rule = LevenbergMarquardt(initial=1.0)
    >>> [rule.update(1.0, reduction_ratio) for reduction_ratio in (0.1, 0.5)]
    [1.5, 1.0]
    """

    initial: float = 1.0
    per_block: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.initial) and self.initial > 0):
            raise ValueError(
                f"LevenbergMarquardt initial must be finite and above 0; got {self.initial}"
            )

    def update(self, damping: float, reduction_ratio: float) -> float:
        """Raise, keep or lower λ, within 1e-12 to 1e12."""
        factor = 3 / 2 if not reduction_ratio >= 0.25 else 2 / 3 if reduction_ratio > 0.75 else 1
        return min(max(damping * factor, LIMITS[0]), LIMITS[1])

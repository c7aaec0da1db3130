"""How much of the solver's step is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Acceptance(Protocol):
    """Chooses the factor t of θ ← θ + t · lr · d."""

    def factor(self, loss_at: Callable[[float], float], slope: float) -> float:
        """The factor t, given t -> loss at θ + t · lr · d, and the slope gᵀ(lr · d)."""


@dataclass(frozen=True)
class FullStep:
    """Take the whole step: θ ← θ + lr · d, without a look at the loss (Zhang et al. 2017).

    >>> FullStep().factor(loss_at=lambda t: t, slope=1.0)
    1.0
    """

    def factor(self, loss_at: Callable[[float], float], slope: float) -> float:
        """Return 1, without evaluating the loss."""
        return 1.0

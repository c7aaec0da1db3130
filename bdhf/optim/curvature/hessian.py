"""The Hessian of the loss itself: ∇²L, indefinite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hessian:
    """The Hessian ∇²L of the loss, by Pearlmutter's (1994) product; indefinite.

    It equals the GGN where the model is linear in its parameters. `StepInfo.stop` reports where CG
    meets negative curvature.
    """

    @property
    def hessian_share(self) -> float:
        """The matrix is ∇²L alone."""
        return 1.0

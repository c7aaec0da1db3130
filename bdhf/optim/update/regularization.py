"""Penalties on the parameters, as part of the minimised loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bdhf.optim.forward.objective import Objective


@dataclass(frozen=True)
class L2:
    """½ μ ‖θ‖² over all trainable parameters, biases too (Martens 2010, §6: μ = 2e-5).

    μ is the `weight`. It adds μθ to the gradient and μI to every curvature, also to a Fisher
    matrix. Losses that the optimizer reports include it; those of an evaluation do not. Raises
    ValueError for a μ below 0.
    """

    weight: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"L2 weight must be finite and at least 0; got {self.weight}")

    def loss(self, objective: Objective) -> float:
        """The penalty of the current parameters; 0.0 for a weight of 0."""
        if not self.weight:
            return 0.0
        return 0.5 * self.weight * float(objective.theta().square().sum())

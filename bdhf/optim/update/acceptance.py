"""Which iterate of the solver is taken, and which fraction of its step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class CandidateStep(Protocol):
    """The steps to try: θ + t · lr · d_i for the iterates d_0 … d_last of the solver."""

    @property
    def last(self) -> int:
        """Index of the solver's answer."""

    @property
    def start_loss(self) -> float:
        """The loss at θ, on the gradient batch."""

    def loss(self, index: int, factor: float) -> float:
        """The loss at θ + factor · lr · d_index, on the gradient batch: one forward pass."""

    def slope(self, index: int) -> float:
        """gᵀ(lr · d_index)."""


class Acceptance(Protocol):
    """Chooses an iterate i and the factor t of θ ← θ + t · lr · d_i."""

    @property
    def needs_iterates(self) -> bool:
        """Whether the solver should keep earlier iterates, and not only its answer."""

    def choose(self, trial: CandidateStep) -> tuple[int, float]:
        """The index i and the factor t; t = 0 rejects the step."""


@dataclass(frozen=True)
class FullStep:
    """Take the full step: θ ← θ + lr · d, without evaluating the loss (Zhang et al. 2017)."""

    @property
    def needs_iterates(self) -> bool:
        """Only the answer is used."""
        return False

    def choose(self, trial: CandidateStep) -> tuple[int, float]:
        """Take the full answer, without evaluating the loss."""
        return trial.last, 1.0


@dataclass(frozen=True)
class Backtracking:
    """CG-backtracking, then Armijo's line search (Martens 2010, §4.6; Martens & Sutskever 2012).

    From the last iterate of CG back as long as the loss falls; then t = 1, `shrink`, `shrink`², …
    until L(θ + t s) ≤ L(θ) + `armijo` · t · gᵀs; after `max_tries` the step is rejected (t = 0), as
    is one that is not downhill. All losses are on the gradient batch. Raises ValueError for a
    setting out of range.
    """

    shrink: float = 0.8
    armijo: float = 1e-2
    max_tries: int = 60

    def __post_init__(self) -> None:
        for name in ("shrink", "armijo"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"Backtracking {name} must be between 0 and 1; got {getattr(self, name)}"
                )
        if self.max_tries < 1:
            raise ValueError(f"Backtracking max_tries must be at least 1; got {self.max_tries}")

    @property
    def needs_iterates(self) -> bool:
        """CG-backtracking compares them."""
        return True

    def choose(self, trial: CandidateStep) -> tuple[int, float]:
        """Give the iterate with the first local minimum of the loss, and its Armijo factor."""
        index, loss = self._walk_back(trial)
        slope, factor = trial.slope(index), 1.0
        if not slope < 0:
            return index, 0.0
        for _ in range(self.max_tries):
            if loss <= trial.start_loss + self.armijo * factor * slope:
                return index, factor
            factor *= self.shrink
            loss = trial.loss(index, factor)
        return index, 0.0

    def _walk_back(self, trial: CandidateStep) -> tuple[int, float]:
        index, loss = trial.last, trial.loss(trial.last, 1.0)
        while index > 0:
            earlier = trial.loss(index - 1, 1.0)
            if not (earlier < loss or math.isnan(loss)):
                break
            index, loss = index - 1, earlier
        return index, loss

"""When a row of CG is done: rules of its residual and of its progress.

`CG.stop` takes one. A rule reads numbers of every row, on the device of the solve, and returns a
mask: it never waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from bdhf.optim.errors import ModelError
from bdhf.optim.solvers.system import Stop

#: Least γ η_{k-1}^α that bounds η_k from below (Eisenstat & Walker 1996, §2.1).
SAFEGUARD = 0.1


class History(NamedTuple):
    """The rows of a solve up to the present iteration i; every tensor is (rows,)."""

    models: Sequence[Tensor]  # φ of x_0 … x_i
    residual: Tensor  # ‖r_i‖², r = rhs - (G + λI) x, without the preconditioner
    rhs: Tensor  # ‖rhs‖² = ‖g‖²


class StopRule(Protocol):
    """When a row of CG is done, beside `max_iters` and what ends every row."""

    @property
    def reason(self) -> Stop:
        """The reason of the rows that the rule stops."""

    def begin(self, history: History, last: Tensor | None) -> Tensor | None:
        """The numbers of this solve, (rows, k), from those of the last update; None: none.

        `last` is None at the first update and after one without a solve. The optimizer keeps the
        numbers in its state.
        """

    def done(self, history: History, numbers: Tensor | None) -> Tensor | None:
        """Which rows are done at the present iteration, (rows,); None: none."""


@dataclass(frozen=True)
class MartensProgress:
    """Stop at small relative progress of φ (Martens 2010, §4.4), as CG does without a rule.

    (φ_i - φ_{i-k}) / φ_i < k · `tol` with k = max(10, ⌈0.1 i⌉), i > k and φ_i < 0. With a `tol` of
    0 it stops no row. Raises ValueError for a tol below 0.
    """

    tol: float = 5e-4

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tol) and self.tol >= 0):
            raise ValueError(
                f"MartensProgress tol must be finite and at least 0; got {self.tol}: give for "
                "example 5e-4, or 0 to turn it off"
            )

    @property
    def reason(self) -> Stop:
        """Small progress."""
        return Stop.PROGRESS

    def begin(self, history: History, last: Tensor | None) -> None:
        """Keep nothing between updates."""

    def done(self, history: History, numbers: Tensor | None) -> Tensor | None:
        """Which rows hardly progress; None up to iteration k."""
        iteration, phi = len(history.models) - 1, history.models[-1]
        span = max(10, math.ceil(0.1 * iteration))
        if iteration <= span or self.tol == 0:
            return None
        progress = (phi - history.models[iteration - span]) / phi
        return (phi < 0) & (progress < span * self.tol)


@dataclass(frozen=True)
class RelativeResidual:
    """Stop at ‖r‖ ≤ `tol` · ‖rhs‖ of the row, r = rhs - (G + λI) x, once φ is below 0.

    The norm is that of r itself, also with a preconditioner. A warm start that is good enough is
    the answer, after no iteration; one with φ ≥ 0 is not, because it may point uphill. Raises
    ValueError for a tol outside [0, 1).
    """

    tol: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.tol < 1:
            raise ValueError(
                f"RelativeResidual tol must be at least 0 and below 1; got {self.tol}: give for "
                "example 0.1"
            )

    @property
    def reason(self) -> Stop:
        """A residual within its tolerance."""
        return Stop.CONVERGED

    def begin(self, history: History, last: Tensor | None) -> None:
        """Keep nothing between updates."""

    def done(self, history: History, numbers: Tensor | None) -> Tensor:
        """Which rows have a small residual."""
        return _within(history, self.tol**2)


@dataclass(frozen=True)
class Forcing:
    """Stop at ‖r‖ ≤ η · ‖g‖ of the row, with η from its last two gradients: inexact Newton.

    η_k = `gamma` (‖g_k‖ / ‖g_{k-1}‖)^`exponent`, at least γ η_{k-1}^α where that is above 0.1
    (choice 2 of Eisenstat & Walker 1996, §2.1), and at most `most`. The first η is `initial`, also
    after a gradient of 0 or one that is not finite. As the gradient shrinks, the solves become more
    exact. Every row has its own η; the state of the optimizer keeps it.

    A warm start that is good enough is the answer, after no iteration, if its φ is below 0. Raises
    ValueError for an initial or most outside [0, 1), a gamma outside (0, 1], an exponent outside
    (1, 2]; ModelError for the state of other blocks.
    """

    initial: float = 0.5
    most: float = 0.9
    gamma: float = 0.9
    exponent: float = 2.0

    def __post_init__(self) -> None:
        for name in ("initial", "most"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"Forcing {name} must be at least 0 and below 1; got {getattr(self, name)}: "
                    "a row would need no iteration at 1"
                )
        for name, low, high, usual in (("gamma", 0, 1, 0.9), ("exponent", 1, 2, 2.0)):
            if not low < getattr(self, name) <= high:
                raise ValueError(
                    f"Forcing {name} must be above {low} and at most {high}; got "
                    f"{getattr(self, name)}: {usual} is usual"
                )

    @property
    def reason(self) -> Stop:
        """A residual within its tolerance."""
        return Stop.CONVERGED

    def begin(self, history: History, last: Tensor | None) -> Tensor:
        """‖g‖ and η of every row, (rows, 2), from those of the last update."""
        norm = history.rhs.sqrt()
        eta = torch.full_like(norm, self.initial)
        if last is not None:
            if last.shape != (len(norm), 2):
                raise ModelError(
                    f"the state belongs to other blocks: Forcing keeps (rows, 2) = {len(norm), 2} "
                    f"numbers, the state has {tuple(last.shape)}; load the state of an optimizer "
                    "with this partition and solver, or start without a state"
                )
            last_norm, last_eta = last.to(norm.dtype).unbind(1)
            ratio = norm / last_norm
            usable = ratio.isfinite() & last_norm.isfinite()
            eta = torch.where(usable, self._choice_2(ratio, last_eta), eta)
        return torch.stack([norm, eta.clamp(max=self.most)], 1)

    def _choice_2(self, ratio: Tensor, last_eta: Tensor) -> Tensor:
        """η of a ratio of norms, with the safeguard of the last η but without the bound `most`."""
        eta = self.gamma * ratio**self.exponent
        floor = self.gamma * last_eta**self.exponent
        return torch.where(floor > SAFEGUARD, torch.maximum(eta, floor), eta)

    def done(self, history: History, numbers: Tensor | None) -> Tensor | None:
        """Which rows have a small residual."""
        if numbers is None:
            return None
        _, eta = numbers.unbind(1)
        return _within(history, eta**2)


def _within(history: History, squared: float | Tensor) -> Tensor:
    """‖r‖² ≤ `squared` · ‖rhs‖², and φ < 0: with G ⪰ 0 then rhsᵀx > 0, so x points downhill."""
    return (history.residual <= squared * history.rhs) & (history.models[-1] < 0)

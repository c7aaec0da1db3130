"""What a solver is given and what it returns: (G_bb + λ_b I) x_b = rhs_b for every block b."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from torch import Tensor

from bdhf.optim.layout import Blocks


class Stop(StrEnum):
    """Why the solver left a block."""

    CONVERGED = "converged"  # the residual is as small as was asked
    PROGRESS = "progress"  # Martens' relative progress fell below its tolerance
    MAX_ITERS = "max_iters"
    NEGATIVE_CURVATURE = "negative_curvature"  # pᵀAp ≤ 0: the last iterate is kept
    NONFINITE = "nonfinite"  # NaN or infinity arose in this block: the last iterate is kept


@dataclass(frozen=True)
class System:
    """One linear system per block. Vectors are (P,) in block order, coefficients (rows,)."""

    blocks: Blocks
    product: Callable[[Tensor, Sequence[int] | None], Tensor]  # G v on active rows, 0 elsewhere
    rhs: Tensor
    damping: Tensor


@dataclass(frozen=True)
class Solution:
    """The solver's answer: x and, for every block, what it took and why it ended.

    `model` is φ_b = ½ x_bᵀ(G_bb + λ_b I) x_b - rhs_bᵀ x_b at the answer, (rows,).
    """

    x: Tensor
    model: Tensor
    iterations: tuple[int, ...]
    products: tuple[int, ...]
    stop: tuple[Stop, ...]


class Solver(Protocol):
    """Solves every block's system on its own."""

    @property
    def warm_start(self) -> float:
        """How much of the last solution is the next start; 0: none."""

    def solve(self, system: System, start: Tensor | None = None) -> Solution:
        """Solve from `start` (P,), or from zero."""

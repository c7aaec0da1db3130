"""What a solver is given and what it returns: (G_bb + λ_b I) x_b = rhs_b for every block b."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.products.cost import Sweeps
from bdhf.optim.vectors.blocks import Blocks


class Stop(StrEnum):
    """Why the solver left a block."""

    CONVERGED = "converged"  # the residual is as small as was asked, or the solve was direct
    PROGRESS = "progress"  # Martens' relative progress fell below its tolerance
    MAX_ITERS = "max_iters"
    NEGATIVE_CURVATURE = "negative_curvature"  # pᵀAp ≤ 0: the last iterate is kept
    NONFINITE = "nonfinite"  # NaN or infinity arose in this block: the last iterate is kept


class Matrix(Protocol):
    """The block-diagonal G of the systems, without damping."""

    def __call__(self, v: Tensor, active: Sequence[int] | None = None) -> Tensor:
        """G_bb v_b for every active block b (None: all), zero elsewhere; (P,) -> (P,)."""

    @property
    def factor_rows(self) -> int:
        """R, the rows that `factor` has."""

    def factor(self, chunk: int) -> Tensor:
        """A with G_bb = A_bᵀA_b for every block b, (R, P), `chunk` rows at a time."""

    def squared_gradients(self) -> Tensor:
        """Mean of the squared gradients of the samples, (P,)."""


@dataclass(frozen=True)
class System:
    """One linear system per block. Vectors are (P,) in block order, coefficients (rows,)."""

    blocks: Blocks
    matrix: Matrix
    rhs: Tensor
    damping: Tensor  # λ ≥ 0
    keep_iterates: bool = False  # ask an iterative solver for iterates on the way


@dataclass(frozen=True)
class Iterate:
    """A point on the way to the solution, with φ_b of it, (rows,).

    φ_b = ½ x_bᵀ(G_bb + λ_b I) x_b - rhs_bᵀ x_b.
    """

    x: Tensor
    model: Tensor


@dataclass(frozen=True)
class Solution:
    """The solver's answer: x and, for every block, what it took and why it ended.

    `model` is φ of the answer; `iterates` are points on the way, the answer last.
    """

    x: Tensor
    model: Tensor
    iterations: tuple[int, ...]
    products: tuple[float, ...]
    stop: tuple[Stop, ...]
    iterates: tuple[Iterate, ...]

    @classmethod
    def nowhere(cls, blocks: Blocks, like: Tensor) -> Solution:
        """No block moves, and no product was made; `like` is (P,), its values do not matter."""
        count = len(blocks.rows)
        stay = Iterate(torch.zeros_like(like), like.new_zeros(count))
        return cls(
            x=stay.x,
            model=stay.model,
            iterations=(0,) * count,
            products=(0.0,) * count,
            stop=(Stop.NONFINITE,) * count,
            iterates=(stay,),
        )


class Solver(Protocol):
    """Solves every block's system on its own."""

    @property
    def warm_start(self) -> float:
        """How much of the last solution is the next start; 0: none."""

    def check(self, blocks: Blocks, curvature: Curvature) -> None:
        """Raise ValueError for blocks or a curvature that it cannot solve, with a way out."""

    def products(self, blocks: Blocks) -> int:
        """How many products with all blocks one solve takes at most."""

    def cost(self, sweeps: Sweeps, samples: float) -> float:
        """What one solve takes at most, in gradients on a curvature batch of `samples`."""

    def solve(self, system: System, start: Tensor | None = None) -> Solution:
        """Solve from `start` (P,), which is used up, or from zero."""


def escape_length(curvature: Tensor, norm: Tensor, damping: Tensor) -> Tensor:
    """Step along p where pᵀAp ≤ 0: 1 / (|pᵀAp| / pᵀp + λ), 0 where that is no number; (rows,)."""
    length = 1.0 / (curvature.abs() / norm + damping)
    return torch.where(length.isfinite(), length, 0.0)

"""Input and result of a solver: (G_bb + λ_b I) x_b = rhs_b for every block b."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.products.cost import Sweeps
from bdhf.optim.products.site_samples import SiteSamples
from bdhf.optim.vectors.blocks import Blocks


class Stop(StrEnum):
    """Why the solver stopped in a block."""

    CONVERGED = "converged"  # the residual is within its tolerance, or the solve is exact
    PROGRESS = "progress"  # Martens' relative progress fell below its tolerance
    MAX_ITERS = "max_iters"
    NEGATIVE_CURVATURE = "negative_curvature"  # pᵀAp ≤ 0 for some p; CG keeps its last iterate
    NONFINITE = "nonfinite"  # NaN or infinity arose in this block: the last iterate is kept


class Matrix(Protocol):
    """The block-diagonal G of the systems, without damping."""

    def __call__(self, v: Tensor, active: Sequence[int] | None = None) -> Tensor:
        """G_bb v_b for every active block b (None: all), zero elsewhere; (P,) -> (P,)."""

    @property
    def factor_rows(self) -> int:
        """R, the rows that `factor` has."""

    def factor(self, chunk: int, positions: Tensor | None = None) -> Tensor:
        """A with G_bb = A_bᵀA_b for every block b, (R, P), `chunk` rows at a time.

        With flat `positions` (n,) only these columns, (R, n), which the caller counts.
        """

    def squared_gradients(self) -> Tensor:
        """Mean of the squared gradients of the samples, (P,)."""

    def squared_gradients_by_site(self) -> Tensor:
        """The same by matrix products with the inputs and cotangents of every site."""

    def site_samples(self) -> SiteSamples:
        """The sites y = W·a + b of the batch, with inputs, cotangents, and blocks of rows."""

    def counting(self, key: Hashable) -> AbstractContextManager[None]:
        """Charge the body to the update, counted once per `key`."""

    @property
    def seed(self) -> int:
        """The seed of what a preconditioner draws."""


@dataclass(frozen=True)
class System:
    """One linear system per block. Vectors are (P,) in block order, coefficients (rows,)."""

    blocks: Blocks
    matrix: Matrix
    rhs: Tensor
    damping: Tensor  # λ ≥ 0, the weight of the penalty on the parameters included
    keep_iterates: bool = False  # for an iterative solver
    stopping: Tensor | None = None  # `Solution.stopping` of the last update
    memory: Tensor | None = None  # what the last solution has left, (k, P)
    updates: int = 0  # before this one
    penalty: float = 0.0  # this weight


@dataclass(frozen=True)
class Iterate:
    """An iterate x with its φ_b, (rows,).

    φ_b = ½ x_bᵀ(G_bb + λ_b I) x_b - rhs_bᵀ x_b.
    """

    x: Tensor
    model: Tensor


@dataclass(frozen=True)
class Solution:
    """The solver's answer: x and, for every block, its counts and why it stopped.

    `model` is φ of the answer; `iterates` are kept iterates, the answer last.
    """

    x: Tensor
    model: Tensor
    iterations: tuple[int, ...]
    products: tuple[float, ...]
    stop: tuple[Stop, ...]
    iterates: tuple[Iterate, ...]
    stopping: Tensor | None = None  # numbers of the stop rule for the next update, (rows, k)
    memory: Tensor | None = None  # for the next system, (k, P); None: that of before stays

    @classmethod
    def nowhere(cls, blocks: Blocks, like: Tensor) -> Solution:
        """The solution without any step or product; `like` is (P,), its values are unused."""
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
        """The factor of the last solution in the next start; 0: no warm start."""

    def check(self, blocks: Blocks, curvature: Curvature) -> None:
        """Raise ValueError, with an alternative, for blocks or a curvature that it cannot solve."""

    def products(self, blocks: Blocks) -> int:
        """The most products with all blocks in one solve."""

    def cost(self, sweeps: Sweeps, samples: float) -> float:
        """The highest cost of one solve, in gradients on a curvature batch of `samples`."""

    def solve(self, system: System, start: Tensor | None = None) -> Solution:
        """Solve from `start` (P,), overwriting it, or from zero."""


def escape_length(curvature: Tensor, norm: Tensor, damping: Tensor) -> Tensor:
    """Step along p where pᵀAp ≤ 0: 1 / (|pᵀAp| / pᵀp + λ), 0 where that is not finite; (rows,)."""
    length = 1.0 / (curvature.abs() / norm + damping)
    return torch.where(length.isfinite(), length, 0.0)

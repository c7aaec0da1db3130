"""Exact solves in the space of the samples, by Woodbury's identity, with G = AᵀA of R rows.

    (AᵀA + λI)⁻¹ b = (b - Aᵀ(AAᵀ + λI)⁻¹ A b) / λ

A has one row per output (or draw) and sample, R = N·C. One Cholesky decomposition of R × R per
block replaces CG.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature, hessian_share
from bdhf.optim.products.cost import Sweeps
from bdhf.optim.solvers.system import Iterate, Solution, Stop, System
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class SampleSpace:
    """Every block's (G_bb + λI) d = -g exactly, through the Gram matrix of its factor.

    The control for "was CG converged?" where the outputs of the curvature batch are few: R = N·C
    in the low thousands. It needs a curvature Jᵀ H J and λ > 0. It holds A, R × P numbers; rows
    are made `chunk` at a time, and R is at most `max_rows`. Raises ValueError for settings out of
    range, for a share of the Hessian, and when solving for more rows or λ = 0.
    """

    max_rows: int = 4000
    chunk: int = 64

    def __post_init__(self) -> None:
        for name in ("max_rows", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"SampleSpace {name} must be at least 1")

    @property
    def warm_start(self) -> float:
        """A direct solve has no start."""
        return 0.0

    def check(self, blocks: Blocks, curvature: Curvature) -> None:
        """Raise ValueError for a curvature that has no factor."""
        if hessian_share(curvature):
            raise ValueError(
                f"SampleSpace needs a positive semi-definite matrix Jᵀ H J, which {curvature} "
                "is not: use CG or Cholesky, or GGN"
            )

    def products(self, blocks: Blocks) -> int:
        """None: the factor replaces them."""
        return 0

    def cost(self, sweeps: Sweeps, samples: float) -> float:
        """The rows of the factor, the Gram matrices, and their decompositions."""
        rows = sweeps.factor_rows * samples
        grams = sum(2 * rows * n * min(rows, n) for n in sweeps.sizes)
        solves = sum(min(rows, n) ** 3 / 3 for n in sweeps.sizes)
        return 0.5 * rows * sweeps.whole + (grams + solves) / (sweeps.gradient * samples)

    def solve(self, system: System, start: Tensor | None = None) -> Solution:
        """Solve every block; `start` is not used."""
        if not bool((system.damping > 0).all()):
            raise ValueError("SampleSpace needs damping above 0 in every block: it divides by λ")
        rows = system.matrix.factor_rows
        if rows > self.max_rows:
            raise ValueError(
                f"SampleSpace needs a Gram matrix of {rows:,} rows (samples × outputs of the "
                f"curvature batch), above max_rows of {self.max_rows:,}: use CG, a smaller "
                "curvature batch, Fisher(samples=1), or a larger max_rows"
            )
        factor = system.matrix.factor(self.chunk)
        x = torch.empty_like(system.rhs)
        model = torch.empty_like(system.damping)
        for index, (block, damping) in enumerate(
            zip(system.blocks.rows, system.damping, strict=True)
        ):
            a = factor[:, block.start : block.stop]
            rhs = system.rhs[block.start : block.stop]
            answer = _solve(a, rhs, damping)
            x[block.start : block.stop] = answer
            image = a.T @ (a @ answer) + damping * answer
            model[index] = answer @ (0.5 * image - rhs)
        return _solution(system, x, model, len(factor))


def _solve(a: Tensor, rhs: Tensor, damping: Tensor) -> Tensor:
    """(aᵀa + λI)⁻¹ rhs, by the smaller of its two Gram matrices; a is (R, n)."""
    rows, n = a.shape
    gram = a @ a.T if rows < n else a.T @ a
    gram.diagonal().add_(damping)
    lower, info = torch.linalg.cholesky_ex(gram)
    lower = torch.where(info == 0, lower, torch.nan)  # λ is below rounding: there is no answer
    if n <= rows:
        return torch.cholesky_solve(rhs[:, None], lower)[:, 0]
    inner = torch.cholesky_solve((a @ rhs)[:, None], lower)[:, 0]
    return (rhs - a.T @ inner) / damping


def _solution(system: System, x: Tensor, model: Tensor, rows: int) -> Solution:
    finite = model.isfinite()
    system.blocks.zero_(~finite, x)
    model = torch.where(finite, model, 0.0)
    return Solution(
        x=x,
        model=model,
        iterations=(0,) * len(system.blocks.rows),
        products=(0.5 * rows,) * len(system.blocks.rows),  # a row is Jᵀw, half a product
        stop=tuple(Stop.CONVERGED if ok else Stop.NONFINITE for ok in finite.tolist()),
        iterates=(Iterate(x, model),),
    )

"""Exact solves in the space of the samples, by Woodbury's identity, with G = AᵀA of R rows.

    (AᵀA + λI)⁻¹ b = (b - Aᵀ(AAᵀ + λI)⁻¹ A b) / λ

A has one row per output (or draw) and sample, R = N·C. One Cholesky decomposition of R × R per
block replaces CG.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature, hessian_share
from bdhf.optim.products.cost import CostWarning, Sweeps
from bdhf.optim.solvers.gram.assemble import BlockFactors, block_factors
from bdhf.optim.solvers.gram.block_factor import woodbury
from bdhf.optim.solvers.system import Iterate, Solution, Stop, System
from bdhf.optim.vectors.blocks import Blocks

#: Bytes of A above which the Gram matrices come from the sites whatever `gram` is.
MAX_FACTOR_BYTES = 2**31


@dataclass(frozen=True)
class SampleSpace:
    """Every block's (G_bb + λI) d = -g exactly, through the Gram matrix of its factor.

    The control for "was CG converged?" where the outputs of the curvature batch are few: R = N·C
    in the low thousands. It needs a curvature Jᵀ H J and λ > 0; R is at most `max_rows`.

    `gram` None holds A, R × P numbers. "sites" adds up A Aᵀ over the sites y = W·a + b of the
    model, (a aᵀ) ∘ (S Sᵀ) where a sample has one position, from C reverse sweeps, and holds R²
    numbers. Columns of A that no site covers (a function without a rule, tied weights, rows that
    the partition cuts, a Blend, a loss whose root is not known sample by sample) are swept row by
    row, and a CostWarning names them. Both give the same d but for rounding; an A above 2 GiB takes
    the sites, with a CostWarning.

    Rows of A are swept `chunk` at a time.

    `carry` c minimises the model with ½ λ‖d - c d_last‖² in place of ½ λ‖d‖², so that the part of
    the last direction that this batch does not see is kept: (G + λI) d = -g + λ c d_last (SPRING,
    Goldshlager, Abrahamsen & Lin 2024). None or 0: no part of it.

    Raises ValueError for settings out of range, for a share of the Hessian, and when solving for
    more rows or λ = 0.
    """

    max_rows: int = 4000
    chunk: int = 64
    gram: Literal["sites"] | None = None
    carry: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_rows", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"SampleSpace {name} must be at least 1")
        if self.gram not in (None, "sites"):
            raise ValueError(f'SampleSpace gram must be "sites", or None; got {self.gram!r}')
        if self.carry is not None and not (math.isfinite(self.carry) and 0 <= self.carry < 1):
            raise ValueError(
                f"SampleSpace carry must be at least 0 and below 1, or None; got {self.carry}"
            )

    @property
    def warm_start(self) -> float:
        """The share of the last direction that the next one keeps; a direct solve has no start."""
        return self.carry or 0.0

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
        """The rows of the factor, the Gram matrices, and their decompositions: the most it takes.

        Through the sites it is less, by as much as they cover.
        """
        rows = sweeps.factor_rows * samples
        grams = sum(2 * rows * n * min(rows, n) for n in sweeps.sizes)
        solves = sum(min(rows, n) ** 3 / 3 for n in sweeps.sizes)
        return 0.5 * rows * sweeps.whole + (grams + solves) / (sweeps.gradient * samples)

    def solve(self, system: System, start: Tensor | None = None) -> Solution:
        """Solve every block; `start`, c d_last, is overwritten, and used where `carry` is set."""
        if not bool((system.damping > 0).all()):
            raise ValueError("SampleSpace needs damping above 0 in every block: it divides by λ")
        rows = system.matrix.factor_rows
        if rows > self.max_rows:
            raise ValueError(
                f"SampleSpace needs a Gram matrix of {rows:,} rows (samples × outputs of the "
                f"curvature batch), above max_rows of {self.max_rows:,}: use CG, a smaller "
                "curvature batch, Fisher(samples=1), or a larger max_rows"
            )
        b = system.rhs
        if self.carry and start is not None:
            pull = system.damping - system.penalty
            b = system.blocks.add_scaled_(system.rhs.clone(), pull, start)
        if self.gram == "sites" or _too_large(system, rows):
            return _through_sites(system, b, self.chunk)
        return self._through_factor(system, b)

    def _through_factor(self, system: System, b: Tensor) -> Solution:
        factor = system.matrix.factor(self.chunk)
        x = torch.empty_like(system.rhs)
        model = torch.empty_like(system.damping)
        for index, (block, damping) in enumerate(
            zip(system.blocks.rows, system.damping, strict=True)
        ):
            a = factor[:, block.start : block.stop]
            entries = slice(block.start, block.stop)
            answer = woodbury(a, b[entries], damping)
            x[entries] = answer
            image = a.T @ (a @ answer) + damping * answer
            model[index] = answer @ (0.5 * image - system.rhs[entries])
        return _solution(system, x, model, 0.5 * len(factor))  # a row is Jᵀw, half a product


def _too_large(system: System, rows: int) -> bool:
    """Whether A is above the bound; warns if so."""
    columns = len(system.rhs)
    size = rows * columns * system.rhs.element_size()
    if size > MAX_FACTOR_BYTES:
        warnings.warn(
            f"the factor A of SampleSpace would take {size / 2**30:.1f} GiB ({rows:,} rows × "
            f"{columns:,} parameters), above {MAX_FACTOR_BYTES / 2**30:g} GiB: its Gram matrices "
            'are added up over the sites of the model instead, as with gram="sites"',
            CostWarning,
            stacklevel=2,
        )
    return size > MAX_FACTOR_BYTES


def _through_sites(system: System, b: Tensor, chunk: int) -> Solution:
    factors = block_factors(system, chunk)
    _warn_of_sweeps(factors)
    scale = system.damping.reciprocal()
    x = system.blocks.scatter(system.blocks.add_scaled_(torch.zeros_like(b), scale, b)).clone()
    flat = system.blocks.scatter(b)
    with system.matrix.counting("Gram matrices"):
        squares = torch.stack(
            [
                factor.solve(flat, damping, x)
                for factor, damping in zip(factors.rows, system.damping, strict=True)
            ]
        )
    x, dot = system.blocks.gather(x), system.blocks.dot
    model = 0.5 * (squares + system.damping * dot(x, x)) - dot(system.rhs, x)
    return _solution(system, x, model, factors.products)


def _warn_of_sweeps(factors: BlockFactors) -> None:
    """Name what is swept row by row."""
    if not factors.swept:
        return
    (name, why), *others = factors.swept.items()
    more = f" (and {len(others)} more)" if others else ""
    what = f"{name!r}, which {why}{more}" if name else f"all parameters: {why}"
    warnings.warn(
        f"SampleSpace sweeps one row per sample and output for {what}; a partition into whole "
        "rows, or CG, takes fewer sweeps",
        CostWarning,
        stacklevel=2,
    )


def _solution(system: System, x: Tensor, model: Tensor, products: float) -> Solution:
    finite = model.isfinite()
    system.blocks.zero_(~finite, x)
    model = torch.where(finite, model, 0.0)
    return Solution(
        x=x,
        model=model,
        iterations=(0,) * len(system.blocks.rows),
        products=(products,) * len(system.blocks.rows),
        stop=tuple(Stop.CONVERGED if ok else Stop.NONFINITE for ok in finite.tolist()),
        iterates=(Iterate(x, model),),
    )

"""Direct solves of small blocks: their dense matrices, batched, by Cholesky decomposition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.products.cost import Sweeps
from bdhf.optim.solvers.dense import dense_blocks
from bdhf.optim.solvers.system import Iterate, Solution, Stop, System, escape_length
from bdhf.optim.vectors.blocks import Blocks


@dataclass(frozen=True)
class Cholesky:
    """Every block's (G_bb + λI) d = -g exactly, through its dense matrix: for small blocks.

    A block of n parameters costs n products with it and n³/3 operations; blocks of one size are
    factored in one batch. A block that is not positive definite reports `negative_curvature` and
    steps along its right-hand side as CG does at a first iteration. `max_block` bounds n. Raises
    ValueError for a bound below 1, and where the optimizer is built for a block above it.
    """

    max_block: int = 2000

    def __post_init__(self) -> None:
        if self.max_block < 1:
            raise ValueError(f"Cholesky max_block must be at least 1; got {self.max_block}")

    @property
    def warm_start(self) -> float:
        """A direct solve has no start."""
        return 0.0

    def check(self, blocks: Blocks, curvature: Curvature) -> None:
        """Raise ValueError for a block that is too large for a dense matrix."""
        largest = max(n for _, n in blocks.shapes)
        if largest > self.max_block:
            raise ValueError(
                f"Cholesky makes the dense matrix of every block, and one has {largest:,} "
                f"parameters, above max_block of {self.max_block:,}: use CG, a finer partition "
                "(per_neuron), or a larger max_block"
            )

    def products(self, blocks: Blocks) -> int:
        """One product per column."""
        return max(n for _, n in blocks.shapes)

    def cost(self, sweeps: Sweeps, samples: float) -> float:
        """One product per column of every block, and the decompositions."""
        columns = sum(n * cost for n, cost in zip(sweeps.sizes, sweeps.blocks, strict=True))
        flops = sum(n**3 / 3 for n in sweeps.sizes)
        blended = max(sweeps.sizes) * sweeps.blended
        return columns + blended + flops / (sweeps.gradient * samples)

    def solve(self, system: System, start: Tensor | None = None) -> Solution:
        """Solve every block; `start` is not used."""
        x, model, good = [], [], []
        dense = dense_blocks(system.blocks, system.matrix, system.rhs)
        dampings = system.damping.split([rows for rows, _ in system.blocks.shapes])
        rights = system.blocks.matrices(system.rhs)
        for matrix, damping, rhs in zip(dense, dampings, rights, strict=True):
            matrix.diagonal(dim1=1, dim2=2).add_(damping[:, None])
            answer, definite = _solve(matrix, rhs, damping)
            x.append(answer.reshape(-1))
            image = torch.einsum("bij,bj->bi", matrix, answer)
            model.append((answer * (0.5 * image - rhs)).sum(1))
            good.append(definite)
        return _solution(system, torch.cat(x), torch.cat(model), torch.cat(good))


def _solve(matrix: Tensor, rhs: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Solve (B, n, n) x = (B, n); a matrix that is not positive definite steps along rhs."""
    lower, info = torch.linalg.cholesky_ex(0.5 * (matrix + matrix.mT))
    definite = info == 0
    answer = torch.cholesky_solve(rhs[:, :, None], lower)[:, :, 0]
    curvature = torch.einsum("bi,bij,bj->b", rhs, matrix, rhs)
    norm = (rhs * rhs).sum(1)
    escape = escape_length(curvature, norm, damping)
    length = torch.where(curvature > 0, norm / curvature, escape)
    return torch.where(definite[:, None], answer, length[:, None] * rhs), definite


def _solution(system: System, x: Tensor, model: Tensor, definite: Tensor) -> Solution:
    finite = model.isfinite()
    system.blocks.zero_(~finite, x)
    model = torch.where(finite, model, 0.0)
    reasons = {(True, True): Stop.CONVERGED, (False, True): Stop.NEGATIVE_CURVATURE}
    flags = zip(definite.tolist(), finite.tolist(), strict=True)
    return Solution(
        x=x,
        model=model,
        iterations=(0,) * len(system.blocks.rows),
        products=tuple(float(block.size) for block in system.blocks.rows),
        stop=tuple(reasons.get(flag, Stop.NONFINITE) for flag in flags),
        iterates=(Iterate(x, model),),
    )

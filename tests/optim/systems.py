"""Systems of dense matrices, and conjugate gradients on one of them by the textbook."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import nn

from bdhf.optim.solvers import System
from bdhf.optim.vectors.blocks import Blocks
from bdhf.optim.vectors.layout import layout_of

SIZES = (6, 6, 4, 9)  # two block matrices of one shape, and two others


def positive(n: int, seed: int, condition: float = 20.0) -> torch.Tensor:
    """A random positive definite matrix with eigenvalues from 1 to `condition`."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return q @ torch.linspace(1, condition, n, dtype=torch.float64).diag() @ q.T


def blocks_of(sizes) -> Blocks:
    """Blocks of the given sizes; equal neighbours share one block matrix of several rows."""
    layout = layout_of(nn.Linear(sum(sizes), 1, bias=False))
    matrices, start = [], 0
    for size in sizes:
        row = torch.arange(start, start + size)[None]
        if matrices and matrices[-1].shape[1] == size:
            matrices[-1] = torch.cat([matrices[-1], row])
        else:
            matrices.append(row)
        start += size
    return Blocks.of(layout, matrices)


@dataclass(frozen=True)
class Diagonal:
    """A preconditioner with the diagonal that it was given, (P,) in block order."""

    m: torch.Tensor

    def __call__(self, system):
        return self.m


def system(matrices, rhs, damping=0.0, keep_iterates=False) -> System:
    """A system with the given dense matrices, one a row."""
    blocks = blocks_of([len(m) for m in matrices])

    def product(v, active):
        result = torch.zeros_like(v)
        for b in range(len(matrices)) if active is None else active:
            row = blocks.rows[b]
            result[row.start : row.stop] = matrices[b] @ v[row.start : row.stop]
        return result

    lam = torch.full((len(matrices),), damping, dtype=rhs[0].dtype)
    return System(blocks, product, torch.cat(rhs), lam, keep_iterates)


@dataclass(frozen=True)
class Seeded:
    """Products with a seed and without a meter, for a preconditioner that draws."""

    product: Callable
    seed: int = 3

    def __call__(self, v, active=None):
        return self.product(v, active)

    def counting(self, key):
        return nullcontext()


def seeded(matrices, rhs, damping=0.0, **fields) -> System:
    """A system whose matrix has a seed, with other fields of `System`."""
    made = system(matrices, rhs, damping)
    return replace(made, matrix=Seeded(made.matrix), **fields)


def spectrum(values, seed):
    """A random symmetric matrix with these eigenvalues."""
    generator = torch.Generator().manual_seed(seed)
    n = len(values)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return q @ torch.as_tensor(values, dtype=torch.float64).diag() @ q.T


def dense_inverses(preconditioner, solved):
    """M⁻¹ of every block as a dense matrix."""
    inverse = preconditioner(solved)
    units = torch.eye(len(solved.rhs), dtype=solved.rhs.dtype)
    whole = torch.stack([inverse(unit) for unit in units], 1)
    return [whole[row.start : row.stop, row.start : row.stop] for row in solved.blocks.rows]


def textbook(matrix, rhs, iterations, start=None, diagonal=1.0):
    """CG on one dense system, preconditioned by a diagonal (Nocedal & Wright, algorithm 5.3).

    The iterate and φ after each step, up to pᵀAp ≤ 0.
    """
    x = torch.zeros_like(rhs) if start is None else start.clone()
    r = rhs - matrix @ x
    y = r / diagonal
    p, trace = y.clone(), []
    for _ in range(iterations):
        ap = matrix @ p
        if p @ ap <= 0:
            break
        alpha = (r @ y) / (p @ ap)
        x = x + alpha * p
        r_new = r - alpha * ap
        y_new = r_new / diagonal
        p = y_new + (r_new @ y_new) / (r @ y) * p
        r, y = r_new, y_new
        trace.append((x, 0.5 * x @ matrix @ x - rhs @ x))
    return trace


def answers(solution, solved):
    """The rows of a solution."""
    return [solution.x[row.start : row.stop] for row in solved.blocks.rows]

"""The systems of the cases, with a matrix that counts its products, and φ by its definition."""

from dataclasses import dataclass

import torch

import bdhf
from bdhf.optim.products import BlockProduct
from bdhf.optim.solvers import System
from bdhf.optim.vectors.layout import layout_of
from tests.cases import Case
from tests.optim.curvatures import CURVATURES, SEED
from tests.optim.partitions import PARTITIONS


@dataclass(frozen=True)
class Counting:
    """A matrix that counts the products with each of its blocks."""

    product: BlockProduct
    counts: list[int]

    def __call__(self, v, active=None):
        for b in range(len(self.counts)) if active is None else active:
            self.counts[b] += 1
        return self.product(v, active)

    def __getattr__(self, name):
        return getattr(self.product, name)


def system_of(case: Case, curvature="ggn", partition="per_layer", damping=0.05) -> System:
    """The systems of a case, with dampings from `damping` to five times that."""
    G = bdhf.block_curvature(
        case.model,
        case.loss_fn,
        case.batch,
        curvature=CURVATURES[curvature][0],
        partition=PARTITIONS[partition](layout_of(case.model)),
        seed=SEED,
    )
    product = G._product
    rhs = -product.gradient
    count = len(product.blocks.rows)
    lam = torch.linspace(damping, 5 * damping, count, dtype=rhs.dtype)
    return System(product.blocks, Counting(product, [0] * count), rhs, lam)


def solve(solver, system):
    """Solve without recording a graph, as an update does."""
    with torch.no_grad():
        return solver.solve(system)


def phi(system, x):
    """½ xᵀ(G + λI)x - rhsᵀx of every block, by one product."""
    with torch.no_grad():
        image = system.matrix.product(x)
    dot = system.blocks.dot
    return 0.5 * (dot(x, image) + system.damping * dot(x, x)) - dot(system.rhs, x)

"""Preconditioners as dense matrices, and the systems of the cases that they are made for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bdhf
from bdhf.optim import Preconditioner
from bdhf.optim.solvers import System
from bdhf.optim.vectors.layout import Layout, layout_of
from tests.cases import Case
from tests.optim.partitions import PARTITIONS as TABLE
from tests.oracles import size


def neighbours(layout: Layout) -> list[Tensor]:
    """Two neurons of a layer in each block, and a last one alone."""
    blocks = []
    for matrix in bdhf.PerNeuron()(layout):
        even = len(matrix) // 2 * 2
        blocks += [part for part in (matrix[:even].reshape(-1, 2 * matrix.shape[1]),) if even]
        blocks += [part for part in (matrix[even:],) if len(part)]
    return blocks


PARTITIONS = {**TABLE, "neighbours": lambda layout: neighbours}


def system_of(
    case: Case, partition: str = "per_layer", damping: float = 0.1, batch: Any = None
) -> System:
    """The systems of a case, with dampings from `damping` to five times that."""
    G = bdhf.block_curvature(
        case.model, case.loss_fn, case.batch if batch is None else batch,
        partition=PARTITIONS[partition](layout_of(case.model)), seed=3,
    )  # fmt: skip
    product = G._product
    rhs = -product.gradient
    lam = torch.linspace(damping, 5 * damping, len(product.blocks.rows), dtype=rhs.dtype)
    return System(product.blocks, product, rhs, lam)


def damping_of(system: System) -> Tensor:
    """λ of every parameter, (P,)."""
    result = torch.empty(len(system.rhs), dtype=torch.float64)
    for positions, value in zip(system.blocks.positions(), system.damping, strict=True):
        result[positions] = value.double()
    return result


@torch.no_grad()
def dense_inverse(preconditioner: Preconditioner, system: System) -> Tensor:
    """M⁻¹ in the order of the parameters, (P, P)."""
    made = preconditioner(system)
    units = torch.eye(len(system.rhs), dtype=system.rhs.dtype)
    columns = [system.blocks.gather(unit) for unit in units]
    if made is None:
        return units
    solved = [v / made if isinstance(made, Tensor) else made(v) for v in columns]
    return torch.stack([system.blocks.scatter(v) for v in solved], dim=1)


def deep_linear() -> Case:
    """Three linear layers without activations, under squared error: S ⊗ A is exact in a layer."""
    draws = torch.Generator().manual_seed(5)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 3)).double()
    bdhf.nn.Glorot()(model, draws)
    x, y = (torch.randn(9, n, generator=draws, dtype=torch.float64) for n in (4, 3))
    return Case(model, F.mse_loss, (x, y))


def wide() -> Case:
    """Fewer samples than the entries of any input: A and S span parts of their spaces."""
    draws = torch.Generator().manual_seed(6)
    model = nn.Sequential(nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 6)).double()
    bdhf.nn.Glorot()(model, draws)
    x, y = (torch.randn(3, n, generator=draws, dtype=torch.float64) for n in (9, 6))
    return Case(model, F.mse_loss, (x, y))


def few_patches() -> Case:
    """A convolution with more positions than samples, and more entries of a patch than samples."""
    draws = torch.Generator().manual_seed(7)
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)).double()
    bdhf.nn.Glorot()(model, draws)
    x = torch.randn(2, 3, 5, generator=draws, dtype=torch.float64)
    return Case(model, F.mse_loss, (x, torch.randn(2, 2, generator=draws, dtype=torch.float64)))


def parameters_of(part: Any) -> Tensor:
    """Flat positions of the rows of a part of a site, (features · entries,)."""
    rows = [rows.positions for rows in (part.weight, part.bias) if rows is not None]
    return torch.cat(rows, dim=1).reshape(-1)


def sample_gradients(case: Case, columns: Tensor) -> Tensor:
    """J_nᵀ B_cn of every sample n and column c (k, *shape of z), each on its own: (k · N, P)."""
    z = case.model(case.batch[0])
    parameters = [p for p in case.model.parameters() if p.requires_grad]
    rows = []
    for column in columns:
        for output, weights in zip(z, column, strict=True):
            grads = torch.autograd.grad(
                (output * weights).sum(), parameters,
                retain_graph=True, allow_unused=True, materialize_grads=True,
            )  # fmt: skip
            rows.append(torch.cat([grad.reshape(-1) for grad in grads]).detach())
    assert rows[0].numel() == size(case)
    return torch.stack(rows)

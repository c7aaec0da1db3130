"""The dense float64 matrices of an entry: plain autograd, row by row, none of bdhf's products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bdhf.optim.losses import recognise
from tests.cases import Case
from tests.optim.curvatures import at_drawn, is_mean, terms
from tests.zoo import reference

SAMPLES, SEED = 2, 3  # of the Fisher matrix


@contextmanager
def plain() -> Iterator[None]:
    """Without the kernels that fuse attention."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@dataclass(frozen=True)
class Oracle:
    """The matrices of one case, computed when they are used."""

    case: Case

    @cached_property
    def parameters(self) -> list[Tensor]:
        """Of the model, then of the loss; a tied one once."""
        owners = [self.case.model, self.case.loss_fn]
        modules = [owner for owner in owners if isinstance(owner, nn.Module)]
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    @cached_property
    def theta(self) -> Tensor:
        """θ, (P,)."""
        return torch.cat([p.detach().reshape(-1) for p in self.parameters])

    @cached_property
    def outputs(self) -> Tensor:
        """z, with its graph."""
        with plain():
            return self.case.model(self.case.batch[0])

    @cached_property
    def gradient(self) -> Tensor:
        """∇L, (P,)."""
        with plain():
            return self.derivative(self.loss())

    @cached_property
    def jacobian(self) -> Tensor:
        """∂z/∂θ, (outputs, P), a backward pass for every output."""
        with plain():
            return torch.stack([self.derivative(z) for z in self.outputs.reshape(-1)])

    def ggn(self, _: Any = None) -> Tensor:
        """Jᵀ H J, (P, P)."""
        z = self.outputs.detach()
        hessian = torch.autograd.functional.hessian(
            lambda flat: self.case.loss_fn(flat.view(z.shape), self.case.batch[1]), z.reshape(-1)
        ).detach()
        return self.jacobian.T @ hessian @ self.jacobian

    def hessian(self, _: Any = None) -> Tensor:
        """∇²L, (P, P), row by row."""
        with plain():
            gradient = self.derivative(self.loss(), create_graph=True)
            return torch.stack([self.derivative(entry) for entry in gradient])

    def fisher(self, drawn_at: Tensor) -> Tensor:
        """(1/MK) Σ J_nᵀ s sᵀ J_n, with the targets that are drawn at outputs in float32."""
        case, z = self.case, self.outputs.detach().requires_grad_()
        likelihood, generator = recognise(case.loss_fn), torch.Generator().manual_seed(SEED)
        jacobian = self.jacobian.view(len(z), -1, self.jacobian.shape[1])
        total = torch.zeros(2 * jacobian.shape[2:], dtype=z.dtype)
        for _ in range(SAMPLES):
            drawn = likelihood.draw(drawn_at, case.batch[1], generator)
            drawn = drawn.to(z.dtype) if drawn.is_floating_point() else drawn
            (scores,) = torch.autograd.grad(at_drawn(case, drawn, z), z)
            rows = torch.einsum("nc,ncp->np", scores.reshape(len(z), -1), jacobian)
            total += rows.T @ rows
        return total / (SAMPLES * (terms(case) if is_mean(case) else 1))

    def loss(self) -> Tensor:
        """L, with its graph."""
        with plain():
            return self.case.loss_fn(self.case.model(self.case.batch[0]), self.case.batch[1])

    def derivative(self, value: Tensor, create_graph: bool = False) -> Tensor:
        """∂(scalar)/∂θ, (P,); zero where there is no graph."""
        if not value.requires_grad:
            return torch.zeros(sum(p.numel() for p in self.parameters), dtype=value.dtype)
        parts = torch.autograd.grad(
            value, self.parameters, retain_graph=True, create_graph=create_graph,
            allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        return torch.cat([part.reshape(-1) for part in parts])


@lru_cache(maxsize=1)  # tests of one entry run one after the other
def oracle(name: str) -> Oracle:
    """The oracle of an entry."""
    return Oracle(reference(name))


@lru_cache(maxsize=4)
def dense(name: str, curvature: str) -> Tensor:
    """The matrix of an entry that needs no draws, (P, P)."""
    return getattr(oracle(name), curvature)().detach()

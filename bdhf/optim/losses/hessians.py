"""Hessians of a loss in its outputs, H = B Bᵀ: products and roots.

Each form multiplies (`h(w)` is H w) and applies its root B to columns: `h.root(u)` is B u for a
batch of u, (k, *root_shape) -> (k, *shape of z).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from bdhf.optim.errors import CurvatureError, ModelError
from bdhf.optim.torch_support.failures import Failure, attempt


class OutputHessian(Protocol):
    """The matrix H between Jᵀ and J."""

    @property
    def root_shape(self) -> tuple[int, ...]:
        """Shape of the u in B u; its entries count the columns of B."""

    def __call__(self, w: Tensor) -> Tensor:
        """H w, both of the shape of z."""

    def root(self, u: Tensor) -> Tensor:
        """B u, (k, *root_shape) -> (k, *shape of z). Raises ValueError where H is indefinite."""


@dataclass(frozen=True)
class Diagonal:
    """H = diag(h), h ≥ 0 of the shape of z."""

    h: Tensor

    @property
    def root_shape(self) -> tuple[int, ...]:
        """One column per output."""
        return tuple(self.h.shape)

    def __call__(self, w: Tensor) -> Tensor:
        """H w."""
        return self.h * w

    def root(self, u: Tensor) -> Tensor:
        """B = diag(√h)."""
        return self.h.sqrt() * u


@dataclass(frozen=True)
class Softmax:
    """H = t (diag p - ppᵀ) for every term: the curvature of -Σ_c t_c log softmax(z)_c, t = Σ t_c.

    B = √t (diag √p - p √pᵀ), since BBᵀ = diag p - 2ppᵀ + p(Σp)pᵀ over one term.
    """

    p: Tensor  # class probabilities, shape of z
    t: Tensor  # weight of every term, 1 along the class dimension
    classes: int  # the class dimension, counted from the end

    @property
    def root_shape(self) -> tuple[int, ...]:
        """One column per class and term."""
        return tuple(self.p.shape)

    def __call__(self, w: Tensor) -> Tensor:
        """H w."""
        pw = self.p * w
        return self.t * (pw - self.p * pw.sum(self.classes, keepdim=True))

    def root(self, u: Tensor) -> Tensor:
        """B u."""
        scaled = self.p.sqrt() * u
        inner = scaled.sum(self.classes, keepdim=True)
        return self.t.sqrt() * (scaled - self.p * inner)


@dataclass(frozen=True)
class Outer:
    """H_n = Σ_k s_kn s_knᵀ for every sample n: rank K, from scores s of shape (K, *shape of z)."""

    scores: Tensor

    @property
    def root_shape(self) -> tuple[int, ...]:
        """One column per draw and sample, (K, N)."""
        return tuple(self.scores.shape[:2])

    def __call__(self, w: Tensor) -> Tensor:
        """H w."""
        products = self.scores * w
        inner = products.reshape(*self.root_shape, -1).sum(2)  # sᵀw of every draw and sample
        return (_spread(inner, self.scores) * self.scores).sum(0)

    def root(self, u: Tensor) -> Tensor:
        """B u."""
        return (_spread(u, self.scores) * self.scores).sum(1)


def _spread(u: Tensor, like: Tensor) -> Tensor:
    """(…, K, N) as (…, K, N, 1, …), to multiply scores."""
    return u.reshape(*u.shape, *[1] * (like.dim() - 2))


@dataclass(frozen=True)
class Differentiated:
    """∇²_z of any loss, by automatic differentiation of its gradient with its graph."""

    gradient: Tensor  # of z, with its graph
    z: Tensor
    loss: str = "loss"  # its name

    @property
    def root_shape(self) -> tuple[int, ...]:
        """One column per output of the batch."""
        return (self.z.numel(),)

    def __call__(self, w: Tensor) -> Tensor:
        """H w."""
        if not self.gradient.requires_grad:  # a loss that is linear in z
            return torch.zeros_like(w)
        product: Tensor | Failure = attempt(
            lambda: torch.autograd.grad(
                self.gradient, self.z, w,
                retain_graph=True, allow_unused=True, materialize_grads=True,
            )[0]
        )  # fmt: skip
        if isinstance(product, Failure):
            raise no_curved_loss(self.loss, product)
        return product.detach()  # torch 2.9's zeros require a gradient

    def root(self, u: Tensor) -> Tensor:
        """B u, from the eigenvectors of the dense Hessian of the whole batch."""
        return (u @ self._root.T).view(-1, *self.z.shape)

    @cached_property
    def _root(self) -> Tensor:
        size = self.z.numel()
        units = torch.eye(size, dtype=self.z.dtype, device=self.z.device)
        dense = torch.stack([self(unit.view(self.z.shape)).reshape(-1) for unit in units])
        values, vectors = torch.linalg.eigh(0.5 * (dense + dense.T))
        slack = size * torch.finfo(values.dtype).eps * values.abs().max()
        if values[0] < -slack:
            raise ModelError(
                f"the loss is not convex in the outputs (an eigenvalue of its Hessian is "
                f"{float(values[0]):.3g}), so it has no root: use CG"
            )
        root: Tensor = vectors * values.clamp_min(0).sqrt()
        return root


@dataclass(frozen=True)
class Scaled:
    """scale · H, for a scale ≥ 0."""

    inner: OutputHessian
    scale: Tensor  # ()

    @property
    def root_shape(self) -> tuple[int, ...]:
        """That of H."""
        return self.inner.root_shape

    def __call__(self, w: Tensor) -> Tensor:
        """H w, scaled."""
        return self.scale * self.inner(w)

    def root(self, u: Tensor) -> Tensor:
        """B u, scaled by the root."""
        return self.scale.sqrt() * self.inner.root(u)


def summed_over_samples(hessian: OutputHessian) -> Tensor | None:
    """Σ_n H_n for outputs (N, C): (C, C), its diagonal (C,), or c for c · I, (); None: unknown."""
    if isinstance(hessian, Scaled):
        inner = summed_over_samples(hessian.inner)
        return None if inner is None else hessian.scale * inner
    if isinstance(hessian, Diagonal) and hessian.h.dim() == 2:
        total = hessian.h.sum(0)
        return total[0] if not any(hessian.h.stride()) else total  # the same number everywhere
    if isinstance(hessian, Softmax) and hessian.p.dim() == 2:
        weighted = hessian.t * hessian.p
        return weighted.sum(0).diag() - weighted.mT @ hessian.p
    if isinstance(hessian, Outer) and hessian.scores.dim() == 3:
        rows = hessian.scores.flatten(0, 1)
        return rows.mT @ rows
    return None


def no_curved_loss(loss: str, failure: Failure) -> CurvatureError:
    """The error for a loss without a second derivative in the outputs; `loss` is its name."""
    error = CurvatureError(
        f"the loss {loss} has no second derivative in torch ({failure.reason}): use a loss made of "
        "differentiable operators, or give it a closed form (the methods of "
        "bdhf.optim.Likelihood); EmpiricalFisher and Fisher then need its first derivative only"
    )
    error.__cause__ = failure.error
    return error

"""Inputs and cotangents of some features in one micro-batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.products.site_samples import Inputs
from bdhf.optim.solvers.gram import inputs


@dataclass(frozen=True)
class Sample:
    """S (C, N, T, g, f) and a of a micro-batch; a is None for a bias alone."""

    rows: slice  # of A
    s: Tensor
    a: Inputs | None
    bias: bool

    def columns(self) -> Tensor:
        """A, (C N, g f d + g f): the weights, then the biases."""
        count = self.s.shape[:2].numel()
        parts = [] if self.a is None else [inputs.sample_rows(self.s, self.a).reshape(count, -1)]
        if self.bias:
            parts.append(self.s.sum(2).reshape(count, -1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def forward(self, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """A v, (C N,), for v of the weight (g, f, d) and of the bias (g, f)."""
        y = self.s.new_zeros(())
        if self.a is not None and weight is not None:
            y = y + inputs.push(weight, self.a)
        if bias is not None:
            y = y + bias
        return (self.s * y).sum((2, 3, 4)).reshape(-1)

    def adjoint(self, w: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Aᵀ w for w (C N,): that of the weight (g, f, d) and of the bias (g, f)."""
        u = torch.einsum("cntgf,cn->ntgf", self.s, w.view(self.s.shape[:2]))
        weight = None if self.a is None else inputs.pull(u, self.a)
        return weight, u.sum((0, 1)) if self.bias else None

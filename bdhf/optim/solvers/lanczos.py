"""Lanczos on all blocks in lockstep, from the right-hand sides: V_bᵀ G_bb V_b = T_b in every row.

    w = G v_j - β_{j-1} v_{j-1} - α_j v_j,     α_j = v_jᵀ G v_j
    w = w - V Vᵀ w                             (full reorthogonalisation)
    v_{j+1} = w / β_j,                         β_j = ‖w‖

V starts with b / ‖b‖ and spans the Krylov space of G, which is that of G + λI; T is tridiagonal,
with α on its diagonal and β beside it. Golub & Van Loan, *Matrix Computations*, section 10.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bdhf.optim.solvers.lockstep import Rows
from bdhf.optim.solvers.system import Stop, System

#: β below so many rounding units of the largest |α| + β is zero: products are rounded as well.
ROUNDING_UNITS = 10


class Lanczos:
    """The basis V of every row and the entries of its T; `rows` has the active ones.

    The basis holds up to `steps` vectors (P,) in block order. In a stopped row the next vectors are
    zero, and the next entries of T are meaningless and unused: T has `rows.iterations` columns.
    """

    def __init__(self, system: System, steps: int, eager: bool) -> None:
        self.system, blocks = system, system.blocks
        bb = blocks.dot(system.rhs, system.rhs)
        self.rows = Rows(bb, eager)
        self.norm = bb.sqrt()  # ‖b‖
        self.alphas: list[Tensor] = []
        self.betas: list[Tensor] = []
        self._largest = torch.zeros_like(bb)  # |α| + β so far
        self._sizes = torch.cat([bb.new_full((rows,), n) for rows, n in blocks.shapes])
        self._basis = system.rhs.new_empty(steps, len(system.rhs))
        self._vectors = self._basis.unbind()
        self.rows.rest(~bb.isfinite(), Stop.NONFINITE)
        self.rows.rest(bb == 0, Stop.CONVERGED)
        self._set(0, system.rhs, self.norm)

    def step(self) -> None:
        """Multiply the last vector in every active row: one more column of T."""
        rows, blocks, index = self.rows, self.system.blocks, len(self.alphas)
        v = self._vectors[index]
        w = self.system.matrix(v, rows.listed)
        rows.products += rows.active
        alpha = blocks.dot(v, w)
        last = self.betas[-1] if self.betas else torch.zeros_like(alpha)
        if index:
            blocks.add_scaled_(w, -last, self._vectors[index - 1])
        beta = blocks.add_scaled_dot_(w, -alpha, v, w, alpha.dtype).sqrt()
        if index + 1 < len(self._vectors):
            self._orthogonalise_(w)
            beta = blocks.dot(w, w).sqrt()
        rows.rest(~(alpha.isfinite() & beta.isfinite()), Stop.NONFINITE)
        rows.iterations += rows.active
        self.alphas.append(alpha)
        self.betas.append(beta)
        self._largest = torch.maximum(self._largest, alpha.abs() + last)
        self._stop_complete(beta)
        if index + 1 < len(self._vectors):
            self._set(index + 1, w, beta)

    def tridiagonal(self, count: int) -> Tensor:
        """T of at most `count` steps, (rows, count, count), with zeros where a row has fewer."""
        steps = torch.arange(count, device=self.norm.device)
        size = self.rows.iterations.clamp(max=count).unsqueeze(1)
        alpha = torch.stack(self.alphas[:count], 1).masked_fill(steps >= size, 0.0)
        beta = torch.stack(self.betas[:count], 1).masked_fill(steps + 1 >= size, 0.0)
        beside = beta.narrow(1, 0, count - 1)
        return alpha.diag_embed() + beside.diag_embed(1) + beside.diag_embed(-1)

    def combine(self, coefficients: Tensor) -> Tensor:
        """V y of every row, (rows, count) -> (P,)."""
        count = coefficients.shape[1]
        parts = coefficients.split([rows for rows, _ in self.system.blocks.shapes])
        pairs = zip(parts, self._matrices(count), strict=True)
        return torch.cat([torch.bmm(y.unsqueeze(1), v).reshape(-1) for y, v in pairs])

    def _matrices(self, count: int) -> list[Tensor]:
        """Views (rows, count, n) of the first vectors, one per block matrix."""
        shapes = self.system.blocks.shapes
        parts = self._basis.narrow(0, 0, count).split([rows * n for rows, n in shapes], 1)
        return [
            part.unflatten(1, shape).transpose(0, 1)
            for part, shape in zip(parts, shapes, strict=True)
        ]

    def _orthogonalise_(self, w: Tensor) -> None:
        """In place: w = w - V Vᵀ w in every row."""
        targets = self.system.blocks.matrices(w)
        for target, v in zip(targets, self._matrices(len(self.alphas) + 1), strict=True):
            inner = torch.bmm(v, target.unsqueeze(2))  # (rows, count, 1)
            target.unsqueeze(1).baddbmm_(inner.mT, v, alpha=-1)

    def _stop_complete(self, beta: Tensor) -> None:
        """Stop the rows whose Krylov space is complete: β is 0, or V spans the block."""
        floor = ROUNDING_UNITS * torch.finfo(beta.dtype).eps * self._largest
        self.rows.rest((beta <= floor) | (self._sizes <= len(self.alphas)), Stop.CONVERGED)

    def _set(self, index: int, w: Tensor, norm: Tensor) -> None:
        """Set a vector of the basis to w / ‖w‖ in active rows, and to 0 in the others."""
        v, blocks = self._vectors[index], self.system.blocks
        parts = norm.split([rows for rows, _ in blocks.shapes])
        for target, source, part in zip(blocks.matrices(v), blocks.matrices(w), parts, strict=True):
            torch.div(source, part.unsqueeze(1), out=target)
        if self.rows.any(~self.rows.active):
            blocks.zero_(~self.rows.active, v)

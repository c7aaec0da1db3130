"""Products with Jᵀ H J by propagation through a graph that is built once.

The graph of z = f_θ(x) is kept, and so is that of q(u) = Jᵀu, which is linear in u. For a block b

    J_b v_b = ∂⟨q_b(u), v_b⟩/∂u,    then H,    then J_bᵀ w = ∂⟨z, w⟩/∂θ_b

(Pearlmutter 1994 and Schraudolph 2002, by two reverse sweeps). No product runs the model forward,
and a sweep that is given the tensors of one block walks only from that block to the output.
Building q with u = ∇_z L makes it the gradient, at no further cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from bdhf.optim.curvature import OutputCurvature
from bdhf.optim.layout import Block, Blocks, flatten
from bdhf.optim.products.linearisation import block_by_block, pick, spread
from bdhf.optim.products.per_sample import squared_gradients
from bdhf.optim.products.request import Request


class Propagate:
    """One batch at one θ under a curvature Jᵀ H J; keeps the graph while it lives."""

    def __init__(self, request: Request, curvature: OutputCurvature) -> None:
        self._objective, self.batch = request.objective, request.batch
        self._parameters = request.objective.parameters
        self._flops, self._shapes = request.flops, request.shapes
        self._flops.run(
            ("linearise", self._shapes), lambda: self._linearise(curvature, request.generator)
        )

    def _linearise(self, curvature: OutputCurvature, generator: torch.Generator) -> None:
        inputs, targets = self.batch
        self.outputs = self._objective.outputs(inputs)
        expansion = curvature.expand_loss(self._objective.loss_fn, self.outputs, targets, generator)
        self.loss, self.hessian = expansion.loss, expansion.hessian
        self._u = expansion.gradient.requires_grad_()
        self._q = torch.autograd.grad(
            self.outputs, self._parameters, self._u,
            create_graph=True, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        self.gradient = flatten(q.detach() for q in self._q)

    def product(self, blocks: Blocks, v: Tensor, active: Sequence[int]) -> Tensor:
        """G_bb v_b for every active block b, zero elsewhere; (P,) -> (P,), in block order."""
        key = ("product", self._shapes)
        return block_by_block(blocks, v, active, self._product, self._flops, key)

    def _product(self, block: Block, v: Tensor) -> Tensor:
        """G_bb v for one block, (P_b,) -> (P_b,)."""
        tangents = zip(block.slots, spread(block, v, self._parameters), strict=True)
        reached = [(self._q[i], t) for i, t in tangents if self._q[i].requires_grad]
        if not reached:  # the outputs do not depend on this block
            return torch.zeros_like(v)
        (jv,) = torch.autograd.grad(
            [q for q, _ in reached], self._u, [tangent for _, tangent in reached],
            retain_graph=True, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        columns = torch.autograd.grad(
            self.outputs, [self._parameters[i] for i in block.slots], self.hessian(jv),
            retain_graph=True, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        return pick(block, columns)

    @property
    def factor_rows(self) -> int:
        """R, one row a column of B."""
        return torch.Size(self.hessian.root_shape).numel()

    def factor(self, chunk: int) -> Tensor:
        """A = BᵀJ with H = BBᵀ, (R, P) in the order of the parameters."""
        return torch.cat(
            [
                self._flops.run(
                    ("factor", self._shapes, len(u)), partial(self._rows, self.hessian.root(u))
                )
                for u in _units(self.hessian.root_shape, chunk, self._u)
            ]
        )

    def _rows(self, cotangents: Tensor) -> Tensor:
        """Jᵀw for k vectors w at once, (k, *shape of z) -> (k, P)."""
        columns = torch.autograd.grad(
            self.outputs, self._parameters, cotangents, is_grads_batched=True,
            retain_graph=True, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        shapes = zip(columns, self._parameters, strict=True)
        return torch.cat(
            [column.expand(len(cotangents), *p.shape).flatten(1) for column, p in shapes], dim=1
        )

    def squared_gradients(self) -> Tensor:
        """Σ_n (J_nᵀ ∇_z L_n)² over the samples, (P,) in the order of the parameters."""
        return self._flops.run(
            ("squared gradients", self._shapes),
            lambda: squared_gradients(self._objective, self.batch[0], self._u.detach()),
        )


def _units(shape: tuple[int, ...], chunk: int, like: Tensor) -> Iterator[Tensor]:
    """Unit vectors of a shape, (k, *shape) with k ≤ chunk, until each was there once."""
    size = torch.Size(shape).numel()
    for start in range(0, size, chunk):
        units = like.new_zeros(min(chunk, size - start), size)
        units[:, start:].fill_diagonal_(1.0)
        yield units.view(-1, *shape)

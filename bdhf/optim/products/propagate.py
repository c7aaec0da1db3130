"""Products with Jᵀ H J by propagation through a graph that is built once.

The graph of z = f_θ(x) is kept, and so is that of q(u) = Jᵀu, which is linear in u. For a block b

    J_b v_b = ∂⟨q_b(u), v_b⟩/∂u,    then H,    then J_bᵀ w = ∂⟨z, w⟩/∂θ_b

(Pearlmutter 1994 and Schraudolph 2002, by two reverse sweeps). No product runs the model forward,
and a sweep that is given the tensors of one block walks only from that block to the output.
Building q with u = ∇_z L makes it the gradient, at no further cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from bdhf.optim.curvature import Curvature
from bdhf.optim.flops import Flops, signature
from bdhf.optim.layout import Block, Blocks, split_like
from bdhf.optim.objective import Batch, Objective


class Propagate:
    """The block-diagonal curvature product of one batch at one θ; keeps the graph while it lives.

    `loss` is a scalar, `gradient` is (P,) in block order, both of the batch that was linearised.
    """

    method = "propagate"

    def __init__(
        self,
        objective: Objective,
        batch: Batch,
        curvature: Curvature,
        blocks: Blocks,
        flops: Flops,
    ) -> None:
        self.blocks = blocks
        self._flops = flops
        self._shapes = signature(batch)
        self._parameters = objective.parameters
        flops.run(("linearise", self._shapes), lambda: self._linearise(objective, batch, curvature))

    def _linearise(self, objective: Objective, batch: Batch, curvature: Curvature) -> None:
        inputs, targets = batch
        self._outputs = objective.outputs(inputs)
        expansion = curvature.expand_loss(objective.loss_fn, self._outputs, targets)
        self.loss, self._hessian = expansion.loss, expansion.hessian
        self._u = expansion.gradient.requires_grad_()
        self._q = torch.autograd.grad(
            self._outputs, self._parameters, self._u,
            create_graph=True, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        self.gradient = torch.cat(
            [self._pick(b, [self._q[i].detach() for i in b.slots]) for b in self.blocks.rows]
        )

    def __call__(self, v: Tensor, active: Sequence[int] | None = None) -> Tensor:
        """G_bb v_b for every active block b, zero elsewhere; (P,) -> (P,), in block order."""
        rows = range(len(self.blocks.rows)) if active is None else active
        result = torch.empty_like(v) if active is None else torch.zeros_like(v)
        for index in rows:
            block = self.blocks.rows[index]
            result[block.start : block.stop] = self._flops.run(
                ("product", self._shapes, index),
                partial(self._product, block, v[block.start : block.stop]),
            )
        return result

    def _product(self, block: Block, v: Tensor) -> Tensor:
        """G_bb v for one block, (P_b,) -> (P_b,)."""
        tangents = zip(block.slots, self._spread(block, v), strict=True)
        reached = [(self._q[i], t) for i, t in tangents if self._q[i].requires_grad]
        if not reached:  # the outputs do not depend on this block
            return torch.zeros_like(v)
        (jv,) = torch.autograd.grad(
            [q for q, _ in reached], self._u, [tangent for _, tangent in reached],
            retain_graph=True, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        columns = torch.autograd.grad(
            self._outputs, [self._parameters[i] for i in block.slots], self._hessian(jv),
            retain_graph=True, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        return self._pick(block, columns)

    def _spread(self, block: Block, v: Tensor) -> list[Tensor]:
        """A block's vector as tensors of the shapes of its parameters."""
        parameters = [self._parameters[i] for i in block.slots]
        if block.within is not None:
            whole = v.new_zeros(sum(parameter.numel() for parameter in parameters))
            whole[block.within] = v
            v = whole
        return split_like(v, parameters)

    def _pick(self, block: Block, tensors: Sequence[Tensor]) -> Tensor:
        """The block's vector, out of tensors of the shapes of its parameters."""
        whole = torch.cat([tensor.reshape(-1) for tensor in tensors])
        return whole if block.within is None else whole[block.within]

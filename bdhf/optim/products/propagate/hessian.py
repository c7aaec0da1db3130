"""Products with the Hessian of the loss: ∇²L_bb v_b = ∂⟨g_b(θ), v_b⟩/∂θ_b (Pearlmutter 1994).

The graph of the gradient g is kept; a product is one reverse sweep through it, and no product runs
the model forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.curvature.output import scalar, value_and_gradient
from bdhf.optim.products.linearisation import block_by_block, pick, slot_tensors
from bdhf.optim.products.no_derivative import no_hessian
from bdhf.optim.products.per_sample import squared_gradients
from bdhf.optim.products.request import Request
from bdhf.optim.torch_support.failures import Failure, attempt
from bdhf.optim.torch_support.flops import part
from bdhf.optim.torch_support.graphs import ends_early
from bdhf.optim.vectors.blocks import Block, Blocks
from bdhf.optim.vectors.layout import flatten

#: Outputs, loss, its gradient at the outputs, and at the parameters: with its graph, and flat.
_Graph = tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...], Tensor]


class DoubleBackward:
    """One batch at one θ under the Hessian; keeps the graph of the gradient while it lives."""

    hessian = None  # the matrix acts on the parameters
    method = "propagate"
    why = "the Hessian is not of the form Jᵀ H J: reverse sweeps through the graph of the gradient"

    def __init__(self, request: Request) -> None:
        self._request = request
        self._objective, self.batch = request.objective, request.batch
        self._parameters = request.objective.parameters
        self.flops, self.shapes = request.flops, request.shapes
        with self.flops.counting(("linearise", self.shapes)):
            self.outputs, self.loss, self._u, self._g, self.gradient = self._linearise()
        if request.objective.passes.nested:
            self.flops.stop_counting()
        if request.settings.dtype is not None:
            self._lower(request.settings.dtype)
        if ends_early(self._g):
            raise no_hessian(request, Failure(RuntimeError("it is marked once_differentiable")))

    def _lower(self, dtype: torch.dtype) -> None:
        """Build the graph again in the precision of the products; loss and gradient stay."""
        with (
            torch.autocast(self._objective.device.type, dtype=dtype),
            self.flops.counting(("lower ∇²L", self.shapes)),
        ):
            *_, self._g, _ = self._linearise_lower()

    def _graph(self) -> _Graph:
        inputs, targets = self.batch
        outputs = self._objective.outputs(inputs).to(self._parameters[0].dtype)
        if self._objective.held:
            return self._of_everything(outputs, targets)
        loss_fn = self._objective.loss_fn
        loss, u, _ = value_and_gradient(loss_fn, outputs, targets, create_graph=True)
        g = attempt(
            lambda: torch.autograd.grad(
                outputs, self._parameters, u,
                create_graph=True, allow_unused=True, materialize_grads=True,
            )
        )  # fmt: skip
        if isinstance(g, Failure):
            raise no_hessian(self._request, g)
        return outputs, loss, u, g, flatten(part.detach() for part in g)

    _linearise = part("linearise")(_graph)
    _linearise_lower = part("lower ∇²L")(_graph)

    def _of_everything(self, outputs: Tensor, targets: Any) -> _Graph:
        """The graph with the loss's own parameters, which have second derivatives too."""
        loss = scalar(self._objective.loss_fn, outputs, targets)
        gradients = attempt(
            lambda: torch.autograd.grad(
                loss, [outputs, *self._parameters],
                create_graph=True, allow_unused=True, materialize_grads=True,
            )
        )  # fmt: skip
        if isinstance(gradients, Failure):
            raise no_hessian(self._request, gradients)
        u, *g = gradients
        return outputs, loss.detach(), u, tuple(g), flatten(part.detach() for part in g)

    def product(self, blocks: Blocks, v: Tensor, active: Sequence[int]) -> Tensor:
        """∇²L_bb v_b for every active block b, zero elsewhere; (P,) -> (P,), in block order."""
        key = ("∇²L product", self.shapes)
        return block_by_block(blocks, v, active, self._product, self.flops, key)

    def _product(self, block: Block, v: Tensor, out: Tensor) -> None:
        """∇²L_bb v for one block, (P_b,) into (P_b,)."""
        key = "∇²L v", self.shapes, block.slots
        sweep = partial(self._multiply, block, v, out)
        failure = attempt(partial(self.flops.part, key, sweep))
        if isinstance(failure, Failure):
            raise no_hessian(self._request, failure)

    def _multiply(self, block: Block, v: Tensor, out: Tensor) -> None:
        """One reverse sweep from the entries of g that depend on the block's parameters."""
        tangents = zip(block.slots, slot_tensors(block, v, self._parameters), strict=True)
        reached = [(self._g[i], t) for i, t in tangents if self._g[i].requires_grad]
        if not reached:  # the gradient is constant in this block
            out.zero_()
            return
        columns = torch.autograd.grad(
            [g for g, _ in reached], [self._parameters[i] for i in block.slots],
            [tangent for _, tangent in reached],
            retain_graph=True, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        out.copy_(pick(block, flatten(columns).detach()))  # torch 2.9's zeros require a gradient

    def together(self, blocks: Blocks) -> bool:
        """Whether there is a single block."""
        return len(blocks.rows) == 1

    @property
    def factor_rows(self) -> int:
        """Refuse: an indefinite matrix has no factor."""
        raise ValueError(
            "the Hessian is indefinite and has no factor A with G = AᵀA: use CG or Cholesky, or GGN"
        )

    def factor(self, chunk: int, positions: Tensor | None = None) -> Tensor:
        """Refuse, like `factor_rows`."""
        return self.gradient.new_zeros(self.factor_rows)

    def squared_gradients(self) -> Tensor:
        """Σ_n (J_nᵀ ∇_z L_n)² over the samples, (P,) in the order of the parameters."""
        return squared_gradients(self._request, self._u.detach())

"""Products with Jᵀ H J by propagation through a single recorded forward pass.

The graph of z = f_θ(x) is kept, and a tape of its operators. For a block b

    J_b v_b  along the tape in forward mode,    then H,    then J_bᵀ w = ∂⟨z, w⟩/∂θ_b  on the graph

(Pearlmutter 1994; Schraudolph 2002). No product runs the model forward, and both sweeps cover only
the part between the tensors of the block and the outputs, or a bottleneck before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from bdhf.optim.curvature import OutputCurvature
from bdhf.optim.products.linearisation import block_by_block
from bdhf.optim.products.no_derivative import no_gradient, no_second_derivative
from bdhf.optim.products.per_sample import squared_gradients
from bdhf.optim.products.propagate.bottleneck import (
    LinearisedBottleneck,
    at_bottleneck,
    forget_bottleneck,
)
from bdhf.optim.products.propagate.choose_jvp import choose_jvp, fall_back, no_way_back
from bdhf.optim.products.propagate.columns import some_columns
from bdhf.optim.products.propagate.way import Way
from bdhf.optim.products.request import Request
from bdhf.optim.products.tape.tape import Tape, taped
from bdhf.optim.products.vjp import vjp
from bdhf.optim.torch_support.failures import Failure, attempt
from bdhf.optim.torch_support.flops import part
from bdhf.optim.vectors.blocks import Block, Blocks


class Propagate:
    """One batch at one θ under a curvature Jᵀ H J; keeps the graph while it lives.

    Where torch fails, the bottleneck falls back to the tape, and the tape to double backward.
    Raises CurvatureError where none works.
    """

    method = "propagate"

    def __init__(self, request: Request, curvature: OutputCurvature) -> None:
        self._request, self._curvature = request, curvature
        self._objective, self.batch = request.objective, request.batch
        self._parameters = request.objective.parameters
        self.flops, self.shapes = request.flops, request.shapes
        with self.flops.counting(("linearise", self.shapes)):
            tape = self._linearise(curvature, request.generator)
        if request.settings.dtype is not None:
            tape = self._lower(request.settings.dtype)
        self._structure = tape.structure
        self._push, self._problem = self.flops.once(
            ("push", self.shapes), partial(choose_jvp, request, tape, self.outputs)
        )
        self._linearised: LinearisedBottleneck | None = None
        self._without = ""  # why there is no bottleneck, where one failed
        if not self._problem:
            self._narrow(tape)
        self.flops.release(tape.slim)

    def _narrow(self, tape: Tape) -> None:
        """Look for a bottleneck; it only saves work, so a failure here is no error."""
        request, push = self._request, self._push
        linearised = attempt(lambda: at_bottleneck(request, tape, self.outputs, self.hessian, push))
        if isinstance(linearised, Failure):
            forget_bottleneck(request, self._structure)
            self._without = f", without a bottleneck ({linearised.reason})"
        else:
            self._linearised = linearised

    def _linearise(self, curvature: OutputCurvature, generator: torch.Generator) -> Tape:
        self.outputs, tape = self._forward()
        targets = self.batch[1]
        expansion = curvature.expand_loss(self._objective.loss_fn, self.outputs, targets, generator)
        self.loss, self.hessian, self._u = expansion.loss, expansion.hessian, expansion.gradient
        through = attempt(self._through_outputs)
        if isinstance(through, Failure):
            raise no_gradient(self._request, through, "the gradient")
        self.gradient = self._objective.with_direct(through, expansion.direct)
        return tape

    @part("forward")
    def _forward(self) -> tuple[Tensor, Tape]:
        return taped(self._parameters, partial(self._objective.outputs, self.batch[0]))

    @part("gradient")
    def _through_outputs(self) -> Tensor:
        return vjp(self.outputs, self._parameters, self._u)

    def _lower(self, dtype: torch.dtype) -> Tape:
        """Run forward again in the precision of the products; loss, gradient and H stay."""
        with (
            torch.autocast(self._objective.device.type, dtype=dtype),
            self.flops.counting(("lower", self.shapes)),
        ):
            self.outputs, tape = self._forward_lower()
        return tape

    @part("lower")
    def _forward_lower(self) -> tuple[Tensor, Tape]:
        inputs, dtype = self.batch[0], self.outputs.dtype
        return taped(self._parameters, lambda: self._objective.outputs(inputs).to(dtype))

    @property
    def why(self) -> str:
        """How its products are computed, and why."""
        problem = self._problem
        how = f"J v by two reverse sweeps ({problem})" if problem else "J v in forward mode"
        how += "" if problem else no_way_back(self._request, self._structure)
        if self._linearised is None:
            return how + self._without
        bottleneck = self._linearised.bottleneck
        sets = f"{len(bottleneck.blocks)} sets of tensors"
        return f"{how}, {sets} up to a bottleneck of {bottleneck.width}"

    def product(self, blocks: Blocks, v: Tensor, active: Sequence[int]) -> Tensor:
        """G_bb v_b for every active block b, zero elsewhere; (P,) -> (P,), in block order."""
        key = ("product", self.shapes)
        return block_by_block(blocks, v, active, self._product, self.flops, key)

    def _product(self, block: Block, v: Tensor, out: Tensor) -> None:
        """G_bb v for one block, (P_b,) into (P_b,), with fallbacks after failures."""
        while True:
            failure = attempt(partial(self._multiply, block, v, out))
            if not isinstance(failure, Failure):
                return
            if self._linearised is not None and block.slots in self._linearised.bottleneck.blocks:
                self._linearised, self._without = None, f", without a bottleneck ({failure.reason})"
                forget_bottleneck(self._request, self._structure)
            elif not self._problem:
                self._push, self._problem = fall_back(
                    self._request, self._structure, self.outputs, failure
                )
                self._linearised = None
            else:
                raise no_second_derivative(self._request, failure, self._problem)

    def _multiply(self, block: Block, v: Tensor, out: Tensor) -> None:
        """J_bᵀ H J_b v, (P_b,) into (P_b,)."""
        way = self._way(block)
        jv = way.forward(v)
        if jv is None:  # the outputs do not depend on this block
            out.zero_()
            return
        hjv = way.hessian(jv)
        way.back(hjv, out)

    def _way(self, block: Block) -> Way:
        """The path to the bottleneck for blocks that have one, else to the outputs."""
        way = Way(
            self.flops, (self.shapes, block.slots, None), block, self._parameters,
            self.outputs, self._push, self.hessian,
        )  # fmt: skip
        linearised = self._linearised
        if linearised is None or block.slots not in linearised.bottleneck.blocks:
            return way
        key = self.shapes, block.slots, linearised.bottleneck.value
        return replace(
            way, shapes=key, end=linearised.c, push=linearised.push, hessian=linearised.hessian
        )

    def together(self, blocks: Blocks) -> bool:
        """Whether there is a single block."""
        return len(blocks.rows) == 1

    @property
    def factor_rows(self) -> int:
        """R, one row per column of B."""
        return torch.Size(self.hessian.root_shape).numel()

    def factor(self, chunk: int, positions: Tensor | None = None) -> Tensor:
        """A = BᵀJ with H = BBᵀ, (R, P) in the order of the parameters, or some columns of it."""
        units = _units(self.hessian.root_shape, chunk, self._u)
        if positions is not None:
            if not len(positions):
                return self._u.new_zeros(self.factor_rows, 0)
            made = partial(some_columns, self._request, self.outputs, positions)
            return torch.cat([made(self.hessian.root(u)) for u in units])
        return torch.cat([self._rows(self.hessian.root(u)) for u in units])

    def _rows(self, cotangents: Tensor) -> Tensor:
        """Jᵀw for k vectors w, (k, *shape of z) -> (k, P); in one sweep where torch can."""
        with self.flops.counting(("factor", self.shapes, len(cotangents))):
            rows = attempt(partial(self._rows_at_once, cotangents))
            if isinstance(rows, Failure):
                rows = attempt(partial(self._rows_in_turn, cotangents))
        if isinstance(rows, Failure):
            raise no_gradient(self._request, rows, "the factor")
        return rows

    def _rows_in_turn(self, cotangents: Tensor) -> Tensor:
        return torch.stack([vjp(self.outputs, self._parameters, w) for w in cotangents])

    def _rows_at_once(self, cotangents: Tensor) -> Tensor:
        columns = torch.autograd.grad(
            self.outputs, self._parameters, cotangents, is_grads_batched=True,
            retain_graph=True, allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        shapes = zip(columns, self._parameters, strict=True)
        rows = len(cotangents)  # a scalar parameter has one entry, and no dimension to flatten
        flat = [column.expand(rows, *p.shape).reshape(rows, p.numel()) for column, p in shapes]
        return torch.cat(flat, dim=1).detach()  # torch 2.9's zeros require a gradient

    def squared_gradients(self) -> Tensor:
        """Σ_n (J_nᵀ ∇_z L_n)² over the samples, (P,) in the order of the parameters."""
        return squared_gradients(self._request, self._u.detach())


def _units(shape: tuple[int, ...], chunk: int, like: Tensor) -> Iterator[Tensor]:
    """All unit vectors of a shape, in chunks (k, *shape) with k ≤ chunk."""
    size = torch.Size(shape).numel()
    for start in range(0, size, chunk):
        units = like.new_zeros(min(chunk, size - start), size)
        units[:, start:].fill_diagonal_(1.0)
        yield units.view(-1, *shape)

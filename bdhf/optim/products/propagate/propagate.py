"""Products with Jᵀ H J by propagation, through a forward pass that is made once.

The graph of z = f_θ(x) is kept, and a tape of its operators. For a block b

    J_b v_b  along the tape in forward mode,    then H,    then J_bᵀ w = ∂⟨z, w⟩/∂θ_b  on the graph

(Pearlmutter 1994; Schraudolph 2002). No product runs the model forward, and both sweeps walk only
between the tensors of the block and the outputs, or a narrow waist on the way to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from bdhf.optim.curvature import OutputCurvature
from bdhf.optim.losses import OutputHessian
from bdhf.optim.products.linearisation import block_by_block, pick, spread
from bdhf.optim.products.no_derivative import no_gradient, no_second_derivative
from bdhf.optim.products.per_sample import squared_gradients
from bdhf.optim.products.propagate.bottleneck import Neck, forget_waist, narrowed
from bdhf.optim.products.propagate.choose_jvp import choose_push, give_way, no_way_back
from bdhf.optim.products.propagate.jvp import Push, transposed
from bdhf.optim.products.request import Request
from bdhf.optim.products.tape.tape import Tape
from bdhf.optim.products.vjp import pulled
from bdhf.optim.torch_support.failures import Failure, attempt
from bdhf.optim.vectors.blocks import Block, Blocks


class Propagate:
    """One batch at one θ under a curvature Jᵀ H J; keeps the graph while it lives.

    The waist, the tape and double backward give way to each other in this order where torch fails;
    CurvatureError where none is left.
    """

    method = "propagate"

    def __init__(self, request: Request, curvature: OutputCurvature) -> None:
        self._request, self._curvature = request, curvature
        self._objective, self.batch = request.objective, request.batch
        self._parameters = request.objective.parameters
        self._flops, self.shapes = request.flops, request.shapes
        tape = self._flops.run(
            ("linearise", self.shapes), lambda: self._linearise(curvature, request.generator)
        )
        if request.settings.dtype is not None:
            tape = self._lower(request)
        self._structure = tape.structure
        self._push, self._problem = self._flops.once(
            ("push", self.shapes), lambda: choose_push(request, tape, self.outputs)
        )
        self._neck: Neck | None = None
        self._without = ""  # why there is no waist, where one failed
        if not self._problem:
            self._narrow(tape)
        self._flops.release(tape.slim)

    def _narrow(self, tape: Tape) -> None:
        """Look for a waist, which only spares work: without one everything goes on."""
        request, push = self._request, self._push
        neck = attempt(lambda: narrowed(request, tape, self.outputs, self.hessian, push))
        if isinstance(neck, Failure):
            forget_waist(request, self._structure)
            self._without = f", without a waist ({neck.reason})"
        else:
            self._neck = neck

    def _linearise(self, curvature: OutputCurvature, generator: torch.Generator) -> Tape:
        inputs, targets = self.batch
        self.outputs, tape = self._taped("forward", lambda: self._objective.outputs(inputs))
        expansion = curvature.expand_loss(self._objective.loss_fn, self.outputs, targets, generator)
        self.loss, self.hessian, self._u = expansion.loss, expansion.hessian, expansion.gradient
        through = attempt(
            lambda: self._flops.part(
                ("gradient", self.shapes),
                lambda: pulled(self.outputs, self._parameters, self._u),
            )
        )
        if isinstance(through, Failure):
            raise no_gradient(self._request, through, "the gradient")
        self.gradient = self._objective.with_direct(through, expansion.direct)
        return tape

    def _taped(self, kind: str, run: Callable[[], Tensor]) -> tuple[Tensor, Tape]:
        """The outputs of a forward pass, with its tape; an error of the model itself is raised."""

        def record() -> tuple[Tensor, Tape]:
            tape = Tape(self._parameters)
            outputs = attempt(lambda: tape.record(run))
            if isinstance(outputs, Failure):
                tape = Tape(self._parameters)
                tape.problem = f"the forward pass cannot be recorded: {outputs.reason}"
                outputs = run()
            return outputs, tape

        return self._flops.part((kind, self.shapes), record)

    def _lower(self, request: Request) -> Tape:
        """Go forward once more in the precision of the products; loss, gradient and H stay."""
        dtype = self.outputs.dtype
        with torch.autocast(request.objective.device.type, dtype=request.settings.dtype):
            self.outputs, tape = self._flops.run(
                ("lower", self.shapes),
                lambda: self._taped(
                    "lower", lambda: self._objective.outputs(self.batch[0]).to(dtype)
                ),
            )
        return tape

    @property
    def why(self) -> str:
        """How its products are computed, and for what reason."""
        problem = self._problem
        how = f"J v by two reverse sweeps ({problem})" if problem else "J v in forward mode"
        how += "" if problem else no_way_back(self._request, self._structure)
        if self._neck is None:
            return how + self._without
        waist = self._neck.waist
        return f"{how}, {len(waist.blocks)} sets of tensors up to a waist of {waist.width}"

    def product(self, blocks: Blocks, v: Tensor, active: Sequence[int]) -> Tensor:
        """G_bb v_b for every active block b, zero elsewhere; (P,) -> (P,), in block order."""
        key = ("product", self.shapes)
        return block_by_block(blocks, v, active, self._product, self._flops, key)

    def _product(self, block: Block, v: Tensor, out: Tensor) -> None:
        """G_bb v for one block, (P_b,) into (P_b,); what fails gives way to what is left."""
        while True:
            failure = attempt(lambda: self._multiply(block, v, out))
            if not isinstance(failure, Failure):
                return
            if self._neck is not None and block.slots in self._neck.waist.blocks:
                self._neck, self._without = None, f", without a waist ({failure.reason})"
                forget_waist(self._request, self._structure)
            elif not self._problem:
                self._push, self._problem = give_way(
                    self._request, self._structure, self.outputs, failure
                )
                self._neck = None
            else:
                raise no_second_derivative(self._request, failure, self._problem)

    def _multiply(self, block: Block, v: Tensor, out: Tensor) -> None:
        end, push, hessian, waist = self._way(block)
        way = self.shapes, block.slots, waist
        tangents = dict(zip(block.slots, spread(block, v, self._parameters), strict=True))
        jv = self._flops.part(("J v", *way), lambda: push(tangents))
        if jv is None:  # the outputs do not depend on this block
            out.zero_()
            return
        touched, w = {i: self._parameters[i] for i in block.slots}, hessian(jv)

        def back() -> None:
            if block.within is None:
                transposed(push, end, touched, w, out)
            else:
                out.copy_(pick(block, transposed(push, end, touched, w)))

        self._flops.part(("Jᵀw", *way), back)

    def _way(self, block: Block) -> tuple[Tensor, Push, OutputHessian, int | None]:
        """Where a block's sweep ends, how to get there, the matrix that stands there; its waist."""
        neck = self._neck
        if neck is not None and block.slots in neck.waist.blocks:
            return neck.c, neck.push, neck.hessian, neck.waist.value
        return self.outputs, self._push, self.hessian, None

    def together(self, blocks: Blocks) -> bool:
        """Only a single block."""
        return len(blocks.rows) == 1

    @property
    def factor_rows(self) -> int:
        """R, one row a column of B."""
        return torch.Size(self.hessian.root_shape).numel()

    def factor(self, chunk: int) -> Tensor:
        """A = BᵀJ with H = BBᵀ, (R, P) in the order of the parameters."""
        return torch.cat(
            [
                self._flops.run(
                    ("factor", self.shapes, len(u)), partial(self._rows, self.hessian.root(u))
                )
                for u in _units(self.hessian.root_shape, chunk, self._u)
            ]
        )

    def _rows(self, cotangents: Tensor) -> Tensor:
        """Jᵀw for k vectors w, (k, *shape of z) -> (k, P); at once where torch can."""
        rows = attempt(lambda: self._rows_at_once(cotangents))
        if isinstance(rows, Failure):
            rows = attempt(
                lambda: torch.stack([pulled(self.outputs, self._parameters, w) for w in cotangents])
            )
        if isinstance(rows, Failure):
            raise no_gradient(self._request, rows, "the factor")
        return rows

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
    """Unit vectors of a shape, (k, *shape) with k ≤ chunk, until each was there once."""
    size = torch.Size(shape).numel()
    for start in range(0, size, chunk):
        units = like.new_zeros(min(chunk, size - start), size)
        units[:, start:].fill_diagonal_(1.0)
        yield units.view(-1, *shape)

"""The two sweeps of one block: J v in forward mode, and Jᵀ w = ∂⟨z, w⟩/∂θ_b on the graph of z."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from bdhf.optim.losses import OutputHessian
from bdhf.optim.products.linearisation import pick, slot_tensors
from bdhf.optim.products.propagate.jvp import JVP, vjp_of
from bdhf.optim.torch_support.flops import Flops, part
from bdhf.optim.vectors.blocks import Block


@dataclass(frozen=True)
class Way:
    """From the parameters of a block to the outputs z, or to a bottleneck before them."""

    flops: Flops
    shapes: Hashable  # the key of its costs
    block: Block
    parameters: Sequence[Tensor]  # of all blocks
    end: Tensor  # z, or the value at the bottleneck
    push: JVP  # J v, to `end`
    hessian: OutputHessian  # the matrix at `end`

    @part("J v")
    def forward(self, v: Tensor) -> Tensor | None:
        """J v, of the shape of z; v is (P_b,). None where z does not depend on the block."""
        tangents = slot_tensors(self.block, v, self.parameters)
        return self.push(dict(zip(self.block.slots, tangents, strict=True)))

    @part("Jᵀw")
    def back(self, w: Tensor, out: Tensor) -> None:
        """Jᵀ w into `out`, (P_b,); w is of the shape of z."""
        touched = {i: self.parameters[i] for i in self.block.slots}
        if self.block.within is None:
            vjp_of(self.push, self.end, touched, w, out)
        else:
            out.copy_(pick(self.block, vjp_of(self.push, self.end, touched, w)))

"""The interface of a method of computing products: one batch at one θ, block by block."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from bdhf.optim.forward.batches import Batch
from bdhf.optim.losses import OutputHessian
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.vectors.blocks import Block, Blocks
from bdhf.optim.vectors.layout import split_like


class Linearisation(Protocol):
    """A curvature linearised at one θ on one batch."""

    @property
    def batch(self) -> Batch:
        """The (inputs, targets) that were linearised."""

    @property
    def shapes(self) -> Hashable:
        """The key under which costs, programs and choices for this batch are kept."""

    @property
    def method(self) -> str:
        """The method that computes its products, a key of `METHODS`."""

    @property
    def why(self) -> str:
        """How its products are computed, and why."""

    @property
    def outputs(self) -> Tensor:
        """The outputs of the model, (N, ...)."""

    @property
    def hessian(self) -> OutputHessian | None:
        """The H of Jᵀ H J; None for a matrix of another form."""

    @property
    def loss(self) -> Tensor:
        """The loss of the batch, ()."""

    @property
    def gradient(self) -> Tensor:
        """Its gradient, (P,) in the order of the parameters."""

    def product(self, blocks: Blocks, v: Tensor, active: Sequence[int]) -> Tensor:
        """G_bb v_b for every active block b, zero elsewhere; (P,) -> (P,), in block order."""

    def together(self, blocks: Blocks) -> bool:
        """Whether one sweep takes all of these blocks; else each takes its own sweep."""

    @property
    def factor_rows(self) -> int:
        """R, the rows that `factor` has. Raises ValueError where G has none."""

    def factor(self, chunk: int, positions: Tensor | None = None) -> Tensor:
        """A with G = AᵀA, (R, P) in the order of the parameters, made `chunk` rows at a time.

        With flat `positions` (n,) only these columns, (R, n), which the caller counts.
        Raises ValueError where G has none.
        """

    def squared_gradients(self) -> Tensor:
        """Σ_n (∂L_n/∂θ)² over the samples n, with L = Σ_n L_n; (P,) in the order of parameters."""


def slot_tensors(block: Block, v: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """A block's vector (P_b,) as tensors of the shapes of the slots that it touches."""
    touched = [tensors[i] for i in block.slots]
    if block.within is not None:
        whole = v.new_zeros(sum(tensor.numel() for tensor in touched))
        whole[block.within] = v
        v = whole
    return split_like(v, touched)


def pick(block: Block, whole: Tensor) -> Tensor:
    """The block's vector (P_b,), out of all entries of the slots that it touches."""
    return whole if block.within is None else whole[block.within]


def block_by_block(
    blocks: Blocks,
    v: Tensor,
    active: Sequence[int],
    multiply: Callable[[Block, Tensor, Tensor], None],
    flops: Flops,
    key: tuple[Hashable, ...],
) -> Tensor:
    """`multiply(block, v_b, out)` on every active block, zero elsewhere; (P,) -> (P,), block order.

    Blocks that touch the same tensors cost the same, so each such set is counted once.
    """
    result = torch.empty_like(v) if len(active) == len(blocks.rows) else torch.zeros_like(v)
    for block in (blocks.rows[index] for index in active):
        entries = slice(block.start, block.stop)
        with flops.counting((*key, block.slots)):
            multiply(block, v[entries], result[entries])
    return result

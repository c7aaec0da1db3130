"""A block-diagonal curvature matrix to look at: products, blocks, the dense matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bdhf.optim.curvature import GGN, Curvature
from bdhf.optim.flops import Flops
from bdhf.optim.layout import Blocks, layout_of
from bdhf.optim.objective import Batch, LossFn, Objective
from bdhf.optim.partitions import Full, Partition
from bdhf.optim.products import BlockProduct, linearise


class BlockCurvature:
    """The block-diagonal curvature of one batch at the parameters as they were when it was built.

    Vectors are flat, in the order of `model.parameters()`, trainable entries only: (P,). It keeps
    the graph of the forward pass while it lives; changing the parameters in place invalidates it.
    """

    def __init__(self, product: BlockProduct, blocks: Blocks) -> None:
        self._product, self._blocks = product, blocks

    @property
    def shape(self) -> tuple[int, int]:
        """(P, P)."""
        return (self._blocks.layout.size, self._blocks.layout.size)

    @property
    def blocks(self) -> list[Tensor]:
        """Flat positions of every block, one 1-D LongTensor each; together each position once."""
        return self._blocks.positions()

    @property
    def method(self) -> str:
        """How products are computed: a key of the table of methods."""
        return self._product.method

    def matvec(self, v: Tensor) -> Tensor:
        """G v, (P,) -> (P,)."""
        return self @ v

    @torch.no_grad()
    def __matmul__(self, v: Tensor) -> Tensor:
        """G v for a vector (P,) or for the columns of a matrix (P, k); the shape stays.

        Raises ValueError for any other shape.
        """
        size = self.shape[0]
        if v.dim() not in (1, 2) or v.shape[0] != size:
            raise ValueError(
                f"G has shape ({size}, {size}) and multiplies ({size},) or ({size}, k); "
                f"got {tuple(v.shape)}"
            )
        if v.dim() == 1:
            return self._blocks.scatter(self._product(self._blocks.gather(v.contiguous())))
        if not v.shape[1]:
            return torch.empty_like(v)
        return torch.stack([self @ column for column in v.unbind(1)], dim=1)

    @torch.no_grad()
    def to_dense(self) -> Tensor:
        """The matrix itself, (P, P), zero outside the blocks; for tests and small models.

        One product gives one column of every block, so it takes as many as the largest block has
        parameters.
        """
        rows = self._blocks.rows
        gradient = self._product.gradient
        dense = gradient.new_zeros(self.shape)
        positions = self.blocks
        for column in range(max(block.size for block in rows)):
            active = [b for b, block in enumerate(rows) if column < block.size]
            unit = torch.zeros_like(gradient)
            unit[[rows[b].start + column for b in active]] = 1.0
            product = self._product(unit, active)
            for b in active:
                values = product[rows[b].start : rows[b].stop]
                dense[positions[b], positions[b][column]] = values
        return dense


def block_curvature(
    model: nn.Module,
    loss_fn: LossFn,
    batch: Batch,
    *,
    curvature: Curvature = GGN(),  # noqa: B008 - parts are frozen, so sharing one is safe
    partition: Partition = Full(),  # noqa: B008
    method: str = "auto",
) -> BlockCurvature:
    """Linearise the curvature of one batch (inputs, targets) at the current parameters.

    Raises ValueError for a partition that does not fit the model, an unknown method, and a model
    whose forward is not a function of each sample alone (batch normalisation, dropout).

    >>> model = nn.Linear(2, 1, bias=False)
    >>> x, y = torch.eye(2), torch.zeros(2, 1)
    >>> G = block_curvature(model, nn.functional.mse_loss, (x, y))
    >>> G.to_dense()  # least squares: (2/N) XᵀX
    tensor([[1., 0.],
            [0., 1.]])
    """
    layout = layout_of(model)
    blocks = Blocks.of(layout, partition(layout))
    objective = Objective.of(model, loss_fn)
    objective.check(batch)
    with torch.enable_grad(), torch.autocast(objective.device.type, enabled=False):
        product = linearise(
            objective, batch, curvature=curvature, blocks=blocks, flops=Flops(), method=method
        )
    return BlockCurvature(product, blocks)

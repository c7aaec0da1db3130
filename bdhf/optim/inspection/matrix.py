"""A block-diagonal curvature matrix to inspect: products, blocks, entries, a self-check."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bdhf.optim.curvature import GGN, Curvature
from bdhf.optim.errors import CurvatureError, ModelTypeError
from bdhf.optim.forward.batches import Batch, micro_batches
from bdhf.optim.forward.objective import Objective
from bdhf.optim.inspection.check import Check, examine
from bdhf.optim.inspection.energy import Energy, off_block_energy
from bdhf.optim.inspection.flatness import warn_if_flat
from bdhf.optim.losses.weights import LossFn
from bdhf.optim.partitions import Full, Partition
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import MAX_BYTES, BlockProduct, Settings, linearise
from bdhf.optim.refusals.refusals import refuse_no_parts
from bdhf.optim.solvers.dense import dense_blocks
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.vectors.block_names import Description, describe


class BlockCurvature:
    """The block-diagonal curvature of one batch at the parameters of its construction.

    Vectors are flat, in the order of `model.parameters()`, trainable entries only: (P,). Those of a
    loss module follow; the rows of a GGN or Fisher matrix for parameters of the loss alone are 0.
    Keeps the graph of the forward pass. Changing the parameters in place invalidates it: its
    products raise CurvatureError from then on.
    """

    def __init__(self, objective: Objective, curvature: Curvature, product: BlockProduct) -> None:
        self._objective, self._curvature = objective, curvature
        self._product, self._blocks = product, product.blocks
        self._versions = _versions(objective.model)

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

    def explain(self) -> str:
        """Why products are computed by this method: what each method costs, or why it fails."""
        return self._product.why

    def describe(self) -> Description:
        """Name, number of parameters and share of every block; prints as a table."""
        return describe(self._blocks)

    def matvec(self, v: Tensor) -> Tensor:
        """G v, (P,) -> (P,)."""
        return self @ v

    @torch.no_grad()
    def __matmul__(self, v: Tensor) -> Tensor:
        """G v for a vector (P,) or for the columns of a matrix (P, k); the shape stays.

        Computed in the precision of the model. Raises ModelTypeError for anything but a real
        Tensor, and ValueError for any other shape.
        """
        size, like = self.shape[0], self._product.gradient
        if not isinstance(v, Tensor) or v.is_complex() or v.device != like.device:
            what = f"{v.dtype} on {v.device}" if isinstance(v, Tensor) else type(v).__name__
            raise ModelTypeError(
                f"G multiplies a Tensor of real numbers on {like.device}; got {what}: "
                f"use torch.as_tensor(v, dtype={like.dtype}, device={str(like.device)!r})"
            )
        if v.dim() not in (1, 2) or v.shape[0] != size:
            raise ValueError(
                f"G has shape ({size}, {size}) and multiplies ({size},) or ({size}, k); "
                f"got {tuple(v.shape)}"
            )
        self._refuse_if_outdated()
        if v.dtype != like.dtype:  # integers would round every product to 0
            return (self @ v.to(like.dtype)).to(v.dtype if v.is_floating_point() else like.dtype)
        if v.dim() == 1:
            with self._objective.arithmetic():
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
        self._refuse_if_outdated()
        gradient = self._product.gradient
        dense = gradient.new_zeros(self.shape)
        with self._objective.arithmetic():
            matrices = dense_blocks(self._blocks, self._product, gradient)
        rows = (row for matrix in matrices for row in matrix)
        for positions, row in zip(self.blocks, rows, strict=True):
            dense[positions[:, None], positions] = row
        return dense

    def check(self) -> Check:
        """Examine the products: repeatable, symmetric, and equal to a finite difference.

        The numbers of the result are relative; `problem` names the module that is suspected.
        Warns where the curvature is exactly 0 (CurvatureWarning).
        """
        self._refuse_if_outdated()
        with self._objective.arithmetic():
            check = examine(self._objective, self._product, self._curvature)
            if check.passed:  # else the problem comes first
                warn_if_flat(self._product)
        return check

    def off_block_energy(self, probes: int = 8, seed: int = 0) -> float:
        """‖G - G_block‖_F / ‖G‖_F by `probes` random vectors: 0 is block-diagonal, 1 the most.

        Hutchinson's estimate by signs v = ±1 from `seed`, E‖Av‖² = ‖A‖²_F, as
        √(off ÷ (off + on)) of off = Σ‖(G - G_block) v‖² and on = Σ‖G_block v‖²: the parts have no
        entry in common, so ‖G‖²_F is the sum of theirs. For a `Blend` the blocks are those of the
        partition inside. Collobert (2004) claims it to be small for blocks of neurons. NaN where G
        is zero. Raises ValueError for fewer than one probe.

        >>> model = nn.Linear(2, 1)  # one block, so nothing is outside
        >>> batch = torch.eye(2), torch.zeros(2, 1)
        >>> block_curvature(model, nn.functional.mse_loss, batch).off_block_energy()
        0.0
        """
        return self._energy(probes, seed).ratio

    def off_block_energy_interval(
        self, probes: int = 8, level: float = 0.95, seed: int = 0
    ) -> tuple[float, float]:
        """The ends (low, high) of a confidence interval of `off_block_energy` by the same probes.

        By the jackknife on log(off ÷ on) and a quantile of Student's t: in [0, 1], and around the
        estimate (docs/decisions/0027 has its coverage). Raises ValueError for fewer than three
        probes, and a level outside (0, 1).
        """
        return self._energy(probes, seed).interval(level)

    @torch.no_grad()
    def _energy(self, probes: int, seed: int) -> Energy:
        self._refuse_if_outdated()
        with self._objective.arithmetic():
            return off_block_energy(self._product, probes, seed)

    def _refuse_if_outdated(self) -> None:
        """Raise CurvatureError if the parameters have been written to."""
        now = _versions(self._objective.model)
        if now != self._versions:
            pairs = {**self._versions, **now}
            changed = [n for n in pairs if now.get(n) != self._versions.get(n)]
            raise CurvatureError(
                f"parameters of {type(self._objective.model).__name__} were modified by an inplace "
                f"operation since this matrix was linearised at them ({len(changed)}, first "
                f"{changed[0]!r}): call block_curvature again"
            )


def _versions(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The number of writes to every parameter, and its address."""
    return {name: (p._version, p.data_ptr()) for name, p in model.named_parameters()}


def block_curvature(
    model: nn.Module,
    loss_fn: LossFn,
    batch: Batch | list[Batch],
    *,
    curvature: Curvature = GGN(),  # noqa: B008 - parts are frozen, so sharing one is safe
    partition: Partition = Full(),  # noqa: B008
    method: str = "auto",
    max_bytes: int = MAX_BYTES,
    product_dtype: torch.dtype | None = None,
    compile: bool = False,  # noqa: A002 - torch's word for it
    seed: int = 0,
) -> BlockCurvature:
    """Linearise the curvature of one batch (inputs, targets) at the current parameters.

    A list is the micro-batches of one batch, weighted by their loss terms. `seed` seeds what the
    curvature draws (`Fisher`).

    `method` is how products are computed: "propagate" takes a forward and a reverse sweep per
    block, for every model and curvature; "layer_io" caches inputs and output factors of every layer
    and takes all blocks at once, for known layers and an H with few columns per sample; "auto"
    takes the cheaper one by FLOPs and memory. `G.method` is the method in use, `G.explain()` the
    reason. `max_bytes` bounds the cache of layer_io; `product_dtype=torch.bfloat16` computes matrix
    products in that precision, but loss, gradient and vectors in the model's; `compile` compiles
    the forward mode of propagate with torch.compile. Raises ValueError for a partition that does
    not fit the model, an unknown method, and a model whose forward is not a function of each sample
    alone (batch normalisation, dropout).

    >>> model = nn.Linear(2, 1, bias=False)
    >>> x, y = torch.eye(2), torch.zeros(2, 1)
    >>> G = block_curvature(model, nn.functional.mse_loss, (x, y))
    >>> G.to_dense()  # least squares: (2/N) XᵀX
    tensor([[1., 0.],
            [0., 1.]])
    """
    settings = Settings(method, max_bytes, product_dtype, compile)
    refuse_no_parts(curvature=curvature)
    objective, batches = Objective.of(model, loss_fn), micro_batches(batch)
    blocks = cut(objective.layout, partition).to(objective.device)
    objective.check()
    with torch.enable_grad(), objective.arithmetic():
        product = linearise(
            objective, batches,
            curvature=curvature, blocks=blocks, flops=Flops(), seed=seed, settings=settings,
        )  # fmt: skip
    return BlockCurvature(objective, curvature, product)

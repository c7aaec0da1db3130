"""Flat vector <-> block matrices: a partition, and arithmetic on vectors in block order.

A partition cuts the flat vector of the parameters into block matrices: each a LongTensor (rows, n)
of flat positions, one block a row. `Blocks` holds vectors in *block order* (matrix after matrix,
row after row), so that every block is contiguous and every matrix a view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from bdhf.optim.vectors.layout import Layout, flatten
from bdhf.optim.vectors.rows import add_scaled_dots_, dots, zero_rows_
from bdhf.optim.vectors.strides import Strided, strided


@dataclass(frozen=True)
class Block:
    """One block: its position in block order, and the tensors that it touches."""

    start: int
    stop: int
    slots: tuple[int, ...]  # indices into Layout.slots, ascending
    within: Tensor | None  # positions within the concatenated slots; None: all of them, in order

    @property
    def size(self) -> int:
        """P_b, the number of parameters of the block."""
        return self.stop - self.start

    def to(self, device: torch.device) -> Block:
        """The block with its positions on a device."""
        within = None if self.within is None else self.within.to(device)
        return replace(self, within=within)


@dataclass(frozen=True)
class Blending:
    """α · (the matrix) + (1 - α) · (the matrix cut to the blocks `inner`)."""

    inner: Blocks
    alpha: float


@dataclass(frozen=True)
class Blocks:
    """A partition of a layout, and arithmetic on vectors in block order.

    Build it with `Blocks.of(layout, matrices)`, which checks that every trainable entry is covered
    exactly once. Vectors are on the device of the model; `to` copies the positions there once,
    otherwise every use does. No method waits for the device.
    """

    layout: Layout
    shapes: tuple[tuple[int, int], ...]  # (rows, n) of every block matrix
    rows: tuple[Block, ...]
    views: tuple[Strided, ...]  # of every slot, in a vector in block order
    permutation: Tensor | None  # (P,) position in block order of each flat entry; None: the same
    blend: Blending | None = None  # the matrix is blended with one cut to other blocks

    @classmethod
    def of(cls, layout: Layout, matrices: Sequence[Tensor]) -> Blocks:
        """Turn the block matrices (rows, n) that a partition returned into `Blocks`."""
        _check_shapes(matrices)
        order = flatten(matrices)
        _check_coverage(layout, order)
        rows: list[Block] = []
        whole = cache(lambda slots: torch.cat([layout.slots[i].positions() for i in slots]))
        for positions in (row for matrix in matrices for row in matrix):
            start = rows[-1].stop if rows else 0
            rows.append(_block(layout, positions, start, whole))
        permutation = torch.empty_like(order)
        permutation[order] = torch.arange(layout.size)
        identity = torch.equal(order, torch.arange(layout.size))
        shapes = tuple((matrix.shape[0], matrix.shape[1]) for matrix in matrices)
        views = strided(layout.split(permutation))
        return cls(layout, shapes, tuple(rows), views, None if identity else permutation)

    def to(self, device: torch.device) -> Blocks:
        """The blocks with their positions on a device, including those of a blend."""
        if self.permutation is None:
            permutation, views = None, self.views
        else:
            permutation = self.permutation.to(device)
            pairs = zip(self.views, self.layout.split(permutation), strict=True)
            views = tuple(view.at(positions) for view, positions in pairs)
        return replace(
            self, permutation=permutation, views=views,
            rows=tuple(block.to(device) for block in self.rows),
            blend=self.blend and replace(self.blend, inner=self.blend.inner.to(device)),
        )  # fmt: skip

    def gather(self, flat: Tensor) -> Tensor:
        """From the order of `model.parameters()` to block order, (..., P) -> (..., P)."""
        if self.permutation is None:
            return flat
        vector = torch.empty_like(flat)
        if not self._regular:
            vector[..., self.permutation] = flat
            return vector
        for view, part in zip(self.views, self.layout.split(flat), strict=True):
            view.write(vector, part)
        return vector

    def scatter(self, vector: Tensor) -> Tensor:
        """From block order to the order of `model.parameters()`, (..., P) -> (..., P)."""
        if self.permutation is None:
            return vector
        if not self._regular:
            return vector[..., self.permutation]
        flat = torch.empty_like(vector)
        for view, part in zip(self.views, self.layout.split(flat), strict=True):
            part.copy_(view.of(vector))
        return flat

    @property
    def _regular(self) -> bool:
        """Whether all are strided views; indexing by entry is 10 times slower."""
        return all(view.positions is None for view in self.views)

    def positions(self) -> list[Tensor]:
        """Flat positions of every block, one 1-D LongTensor on the CPU per block."""
        order = torch.arange(self.layout.size)
        if self.permutation is not None:
            order[self.permutation.cpu()] = order.clone()
        return [order[block.start : block.stop] for block in self.rows]

    def matrices(self, vector: Tensor) -> list[Tensor]:
        """Views (rows, n) of a vector in block order, one per block matrix."""
        parts = vector.split([rows * n for rows, n in self.shapes])
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def dot(self, x: Tensor, y: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Inner product within every block, (P,), (P,) -> (rows,); in `dtype`, None: that of x."""
        pairs = zip(self.matrices(x), self.matrices(y), strict=True)
        return torch.cat([dots(a, b, dtype or x.dtype) for a, b in pairs])

    def add_scaled_(self, y: Tensor, scale: Tensor, x: Tensor) -> Tensor:
        """In place: y += scale[b] · x within every block b; scale is (rows,)."""
        for target, factor, source in self._with_rows(y, scale, x):
            target.addcmul_(factor, source)
        return y

    def add_scaled_dot_(
        self, y: Tensor, scale: Tensor, x: Tensor, z: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """In place y += scale[b] · x within every block b, and then ⟨y, z⟩ there, (rows,).

        One pass over memory; `z` may be `x` or `y`.
        """
        parts = zip(self._with_rows(y, scale, x), self.matrices(z), strict=True)
        return torch.cat([add_scaled_dots_(*target, other, dtype) for target, other in parts])

    def scale_add_(self, y: Tensor, scale: Tensor, x: Tensor) -> Tensor:
        """In place: y = x + scale[b] · y within every block b; scale is (rows,)."""
        for target, factor, source in self._with_rows(y, scale, x):
            torch.addcmul(source, factor, target, out=target)
        return y

    def zero_(self, mask: Tensor, *vectors: Tensor) -> None:
        """In place: set the blocks that `mask` (rows,) marks to zero in every vector."""
        for vector in vectors:
            for matrix, part in zip(self.matrices(vector), self._split(mask), strict=True):
                zero_rows_(matrix, part)

    def _split(self, per_row: Tensor) -> list[Tensor]:
        return list(per_row.split([rows for rows, _ in self.shapes]))

    def _with_rows(
        self, y: Tensor, scale: Tensor, x: Tensor
    ) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
        factors = [part.unsqueeze(1) for part in self._split(scale.to(y.dtype))]
        return zip(self.matrices(y), factors, self.matrices(x), strict=True)


def _block(
    layout: Layout, positions: Tensor, start: int, whole: Callable[[tuple[int, ...]], Tensor]
) -> Block:
    """`whole` returns the flat positions of all entries of some slots."""
    slots = tuple(int(i) for i in layout.slot_at(positions).unique())
    if torch.equal(positions, whole(slots)):
        return Block(start, start + len(positions), slots, None)
    within = torch.searchsorted(whole(slots), positions)
    return Block(start, start + len(positions), slots, within)


def _check_shapes(matrices: Sequence[Tensor]) -> None:
    if not isinstance(matrices, (list, tuple)) or not all(isinstance(m, Tensor) for m in matrices):
        raise ValueError(
            "a partition returns a list of block matrices, non-empty LongTensors (rows, n) of flat "
            f"positions; got {matrices!r:.60}"
        )
    for index, matrix in enumerate(matrices):
        if matrix.dim() != 2 or matrix.dtype != torch.long or not matrix.numel():
            raise ValueError(
                f"block matrix {index} is {matrix.dtype} of shape {tuple(matrix.shape)}; a "
                "partition returns non-empty LongTensors (rows, n) of flat positions"
            )
    if not matrices:
        raise ValueError("the partition returned no block; every trainable entry needs one")


def _check_coverage(layout: Layout, order: Tensor) -> None:
    """Raise ValueError, naming a tensor, unless every trainable entry occurs exactly once."""
    outside = (order < 0) | (order >= layout.size)
    if outside.any():
        raise ValueError(
            f"the partition names position {int(order[outside][0])}; the model has positions "
            f"0 to {layout.size - 1}"
        )
    counts = torch.bincount(order, minlength=layout.size)
    wrong = (counts != 1).nonzero().reshape(-1)
    if len(wrong):
        slot = layout.slots[int(layout.slot_at(wrong[:1]))]
        times = int(counts[wrong[0]])
        what = "in no block" if times == 0 else f"in {times} blocks"
        raise ValueError(
            f"parameter {slot.name!r}: entry {int(wrong[0]) - slot.start} is {what}; "
            "a partition puts every trainable entry into exactly one block"
        )

"""Parameters <-> flat vector <-> block matrices.

The trainable tensors of a model, in the order of `model.parameters()`, are one flat vector of P
entries. A partition cuts it into block matrices: each a LongTensor (rows, n) of flat positions,
one block a row. `Blocks` holds vectors in *block order* (matrix after matrix, row after row), so
that every block is contiguous and every matrix a view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from bdhf.optim.rows import add_scaled_dots_, dots, zero_rows_


@dataclass(frozen=True)
class Slot:
    """One trainable tensor: where it lives in the model, and in the flat vector."""

    name: str  # as model.named_parameters() reports it: the first name of a tied tensor
    owners: tuple[tuple[str, nn.Module], ...]  # path and module, from the model to the owner
    shape: torch.Size
    start: int  # flat position of its first entry

    @property
    def stop(self) -> int:
        """Flat position behind the last entry."""
        return self.start + self.shape.numel()

    def positions(self) -> Tensor:
        """Flat positions of the entries, (numel,)."""
        return torch.arange(self.start, self.stop)


@dataclass(frozen=True)
class Layout:
    """The trainable tensors of a model, in order.

    >>> layout = layout_of(nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)))
    >>> [(slot.name, slot.start) for slot in layout.slots]
    [('0.weight', 0), ('0.bias', 6), ('2.weight', 8), ('2.bias', 10)]
    >>> layout.size
    11
    """

    slots: tuple[Slot, ...]
    frozen: tuple[str, ...]  # names of the parameters that do not require a gradient
    aliases: tuple[str, ...]  # further names of tied tensors, which have their slot elsewhere

    @property
    def size(self) -> int:
        """P, the number of trainable entries."""
        return self.slots[-1].stop

    def slot_at(self, positions: Tensor) -> Tensor:
        """Index of the slot that holds each flat position, same shape as `positions`."""
        return torch.bucketize(positions, torch.tensor([s.stop for s in self.slots]), right=True)


def layout_of(model: nn.Module) -> Layout:
    """List the trainable tensors of a model; a tied tensor is listed once, under its first name.

    Raises ValueError when nothing is trainable.
    """
    slots: list[Slot] = []
    frozen: list[str] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            frozen.append(name)
            continue
        start = slots[-1].stop if slots else 0
        slots.append(Slot(name, _owners(model, name), parameter.shape, start))
    if not slots:
        raise ValueError(
            f"{type(model).__name__} has no trainable parameter: "
            "set requires_grad on at least one before building blocks"
        )
    listed = {slot.name for slot in slots} | set(frozen)
    names = (name for name, _ in model.named_parameters(remove_duplicate=False))
    return Layout(tuple(slots), tuple(frozen), tuple(n for n in names if n not in listed))


def _owners(model: nn.Module, name: str) -> tuple[tuple[str, nn.Module], ...]:
    parts = name.split(".")
    paths = [".".join(parts[:depth]) for depth in range(len(parts))]
    return tuple((path, model.get_submodule(path)) for path in paths)


def split_like(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Views of a flat vector with the shapes of the tensors, one behind the other."""
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """One vector of all entries, one tensor behind the other: what `split_like` takes apart."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@dataclass(frozen=True)
class Block:
    """One block: where it stands in block order, and which tensors it touches."""

    start: int
    stop: int
    slots: tuple[int, ...]  # indices into Layout.slots, ascending
    within: Tensor | None  # positions within the concatenated slots; None: all of them, in order

    @property
    def size(self) -> int:
        """P_b, the number of parameters of the block."""
        return self.stop - self.start

    def to(self, device: torch.device) -> Block:
        """The same block, its positions on a device."""
        within = None if self.within is None else self.within.to(device)
        return replace(self, within=within)


@dataclass(frozen=True)
class Blending:
    """α · (the matrix) + (1 - α) · (the matrix cut to the blocks `inner`)."""

    inner: Blocks
    alpha: float


@dataclass(frozen=True)
class Blocks:
    """A partition of a layout, and the vector arithmetic of vectors in block order.

    Build it with `Blocks.of(layout, matrices)`, which checks that every trainable entry is covered
    exactly once. Vectors live on the device of the model; `to` brings the positions there once,
    else every use does. No method waits for the device.
    """

    layout: Layout
    shapes: tuple[tuple[int, int], ...]  # (rows, n) of every block matrix
    rows: tuple[Block, ...]
    order: Tensor | None  # (P,) flat position of each entry in block order; None: the identity
    blend: Blending | None = None  # other blocks, towards which the matrix is blended

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
        identity = torch.equal(order, torch.arange(layout.size))
        shapes = tuple((matrix.shape[0], matrix.shape[1]) for matrix in matrices)
        return cls(layout, shapes, tuple(rows), None if identity else order)

    def to(self, device: torch.device) -> Blocks:
        """The same blocks, their positions on a device, those that a blend goes towards too."""
        order = None if self.order is None else self.order.to(device)
        blend = self.blend and replace(self.blend, inner=self.blend.inner.to(device))
        return replace(
            self, order=order, rows=tuple(block.to(device) for block in self.rows), blend=blend
        )

    def gather(self, flat: Tensor) -> Tensor:
        """From the order of `model.parameters()` to block order, (..., P) -> (..., P)."""
        return flat if self.order is None else flat[..., self.order]

    def scatter(self, vector: Tensor) -> Tensor:
        """From block order to the order of `model.parameters()`, (P,) -> (P,)."""
        if self.order is None:
            return vector
        flat = torch.empty_like(vector)
        flat[self.order] = vector
        return flat

    def positions(self) -> list[Tensor]:
        """Flat positions of every block, one 1-D LongTensor on the CPU a block."""
        order = torch.arange(self.layout.size) if self.order is None else self.order.cpu()
        return [order[block.start : block.stop] for block in self.rows]

    def matrices(self, vector: Tensor) -> list[Tensor]:
        """Views (rows, n) of a vector in block order, one a block matrix."""
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
    """`whole` gives the flat positions of all entries of some slots."""
    slots = tuple(int(i) for i in layout.slot_at(positions).unique())
    if torch.equal(positions, whole(slots)):
        return Block(start, start + len(positions), slots, None)
    within = torch.searchsorted(whole(slots), positions)
    return Block(start, start + len(positions), slots, within)


def _check_shapes(matrices: Sequence[Tensor]) -> None:
    for index, matrix in enumerate(matrices):
        if matrix.dim() != 2 or matrix.dtype != torch.long or not matrix.numel():
            raise ValueError(
                f"block matrix {index} is {matrix.dtype} of shape {tuple(matrix.shape)}; a "
                "partition returns non-empty LongTensors (rows, n) of flat positions"
            )
    if not matrices:
        raise ValueError("the partition returned no block; every trainable entry needs one")


def _check_coverage(layout: Layout, order: Tensor) -> None:
    """Every trainable entry exactly once, else an error that names a tensor."""
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

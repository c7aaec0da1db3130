"""The columns of A of entries that no site covers: rows Jᵀ B_c, swept one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdhf.optim.solvers.gram import HELD_BYTES
from bdhf.optim.solvers.gram.cotangents import packed
from bdhf.optim.solvers.system import System


class SweptColumns:
    """Columns of A at lists of flat positions; lists that fit below `max_bytes` are kept together.

    `order` is the row of `matrix.factor` for every row of A; None: the same.
    """

    def __init__(
        self, system: System, lists: Sequence[Tensor], order: Tensor | None, chunk: int,
        max_bytes: int = HELD_BYTES,
    ) -> None:  # fmt: skip
        self._system, self._lists, self._order, self._chunk = system, lists, order, chunk
        self._max_bytes = max_bytes
        size = system.matrix.factor_rows * system.rhs.element_size()
        sizes = [size * len(positions) for positions in lists]
        self._groups = {i: group for group in packed(sizes, max_bytes) for i in group}
        self._kept: dict[int, Tensor] = {}
        self.swept = 0.0  # rows, each a reverse sweep
        if lists:  # a linearisation for the factor is made here, and counted apart from its use
            system.matrix.factor(chunk, lists[0][:0])

    def of(self, index: int) -> Tensor:
        """The columns of one list, (R, n)."""
        if index not in self._kept:
            self._kept.clear()  # before the next sweeps
            group = self._groups[index]
            positions = torch.cat([self._lists[i] for i in group])
            rows = self._system.matrix.factor(self._at_once(positions), positions)
            self.swept += len(rows)
            ordered = rows if self._order is None else rows[self._order]
            parts = ordered.split([len(self._lists[i]) for i in group], 1)
            self._kept = dict(zip(group, parts, strict=True))
        return self._kept[index]

    def _at_once(self, positions: Tensor) -> int:
        """Rows in one sweep, which makes the gradients of whole tensors."""
        layout = self._system.blocks.layout
        slots = layout.slot_at(positions).unique().tolist()
        entries: int = sum(layout.slots[i].shape.numel() for i in slots)
        size: int = entries * self._system.rhs.element_size()
        return max(1, min(self._chunk, self._max_bytes // size))


@dataclass(frozen=True)
class ColumnPiece:
    """One list of columns."""

    source: SweptColumns
    index: int
    positions: Tensor  # flat

    alone = False

    @property
    def size(self) -> int:
        """Columns of A."""
        return len(self.positions)

    def columns(self, total: int) -> Tensor:
        """A, (R, size)."""
        return self.source.of(self.index)

    def condensed(self, total: int) -> Tensor:
        """A itself."""
        return self.columns(total)

    def add_gram(self, gram: Tensor, max_bytes: int) -> None:
        """Add A Aᵀ in place, (R, R)."""
        a = self.source.of(self.index)
        gram.addmm_(a, a.T)

    def forward(self, flat: Tensor, total: int) -> Tensor:
        """A v for the entries of v (P,) that belong to it, (R,)."""
        return self.source.of(self.index) @ flat[self.positions.to(flat.device)]

    def add_adjoint(self, w: Tensor, flat: Tensor) -> None:
        """Add Aᵀ w, (R,), to a flat vector (P,) in place."""
        flat[self.positions.to(flat.device)] += self.source.of(self.index).T @ w

"""The buffers of cotangents in a sweep back along a tape, and how they are filled: planned once.

Every value has one buffer, to which its readers add. The buffer of a part of a value (a gate of a
recurrent cell, a slice) is a view of that of the whole, and the buffer of a parameter a view of the
result, so neither is assembled from copies.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bdhf.optim.products.tape.calls import OperatorCall

Scale = Tensor | float
Buffers = dict[Hashable, Tensor]  # buffers of cotangents: by number of the value; of the target: W
Instruction = Callable[[Buffers], object]
Put = Callable[[Buffers, Tensor, bool], object]

#: Key of the initial cotangent of a sweep.
W = "w"


@dataclass(frozen=True)
class CotangentPart:
    """A value whose cotangent is part of that of another: a view of it, or the same numbers."""

    base: int
    makes: tuple[int, ...]  # all parts that are made at once
    covers: bool  # each of them is all of the base
    call: OperatorCall | None = None  # the view; None: the base itself

    def of(self, buffer: Tensor) -> Sequence[Tensor]:
        """The buffers of all parts, views of that of the base."""
        if self.call is None:
            return [buffer]
        made = self.call.func(buffer, *self.call.args[1:], **self.call.kwargs)
        return [made] if isinstance(made, Tensor) else list(made)


@dataclass(frozen=True)
class ValueTable:
    """Properties of the values of a replay that do not depend on cotangents."""

    shapes: Mapping[int, torch.Size]
    dtypes: Mapping[int, torch.dtype]
    parts: dict[int, CotangentPart]
    once: Set[int]  # values with a single contribution to their cotangent
    reached: Set[int]  # values that depend on the sources; others get no cotangent

    def alike(self, value: int, source: int, scale: Scale) -> bool:
        """Whether scale ∘ (a cotangent of `value`) is a cotangent of `source` without change."""
        plain = not isinstance(scale, Tensor) and scale == 1.0
        shape = self.shapes[value] == self.shapes[source]
        return plain and shape and self.dtypes[value] == self.dtypes[source]


@dataclass
class WayBack:
    """The instructions of one sweep back, built reader by reader; `blank` buffers hold no data.

    `like` has the device of all tensors. Between calls a value is new (without a buffer), blank
    (its buffer must be overwritten), or held (contributions are added).
    """

    table: ValueTable
    blank: set[int]
    like: Tensor
    instructions: list[Instruction] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._held: set[int] = set()
        self._kept: set[int] = set()  # taken, and needed once more
        self._wide: set[int] = set()  # values that were broadcast, with a sum that is still wide

    def take(self, value: int) -> bool:
        """Whether a value has a cotangent, after all of its readers."""
        self._narrow(value)
        return value in self._held

    def finish(self) -> None:
        """Sum what was broadcast, and set buffers without contributions to zero."""
        for value in list(self._wide):
            self._narrow(value)
        empty, self.blank = sorted(self.blank), set()
        self.instructions.append(lambda buffers: [buffers[value].zero_() for value in empty])

    def keep(self, value: int) -> None:
        """Keep a cotangent until the next `let_go` of it."""
        self._kept.add(value)

    def let_go(self, values: Sequence[int]) -> None:
        """Free cotangents that have been taken."""
        gone = [value for value in values if value in self._held and value not in self._kept]
        self._kept -= set(values)
        if len(gone) == 1:
            (value,) = gone
            self.instructions.append(lambda buffers: buffers.pop(value))
        elif gone:
            self.instructions.append(lambda buffers: [buffers.pop(value) for value in gone])

    def put(self, value: int) -> Put:
        """How to add a tensor of the shape of the value; the flag: no one else uses the tensor.

        Later contributions to the value are added after it.
        """
        if self._is_new(value):
            self._held.add(value)
            shared = value in self.table.once

            def keep(buffers: Buffers, cotangent: Tensor, own: bool) -> None:
                buffers[value] = cotangent if own or shared else cotangent.clone()

            return keep
        if self._fill(value):
            return lambda buffers, cotangent, own: buffers[value].copy_(cotangent)
        return lambda buffers, cotangent, own: buffers[value].add_(cotangent)

    def add_scaled(self, value: int, scale: Scale, source: int) -> None:
        """Add scale ∘ (the cotangent of `source`)."""
        if value not in self.table.reached:
            return
        if self.table.shapes[value] != self.table.shapes[source]:
            self._add_wide(value, scale, source)
        elif not isinstance(scale, Tensor):
            self._add_number(value, scale, source)
        elif self._is_new(value):
            self._held.add(value)
            self.instructions.append(lambda buffers: _set(buffers, value, scale * buffers[source]))
        elif self._fill(value):
            self.instructions.append(
                lambda buffers: torch.mul(scale, buffers[source], out=buffers[value])
            )
        else:
            self.instructions.append(
                lambda buffers: buffers[value].addcmul_(scale, buffers[source])
            )

    def add_product(
        self, value: int | None, a: Callable[[Buffers], Tensor], b: Callable[[Buffers], Tensor]
    ) -> None:
        """Add the matrix product a b."""
        if value is None or value not in self.table.reached:
            return
        if self._is_new(value):
            self._held.add(value)
            self.instructions.append(lambda buffers: _set(buffers, value, a(buffers) @ b(buffers)))
        elif self._fill(value):
            self.instructions.append(
                lambda buffers: torch.mm(a(buffers), b(buffers), out=buffers[value])
            )
        else:
            self.instructions.append(lambda buffers: buffers[value].addmm_(a(buffers), b(buffers)))

    def add_rows(self, value: int | None, source: Callable[[Buffers], Tensor]) -> None:
        """Add a tensor to a value that was broadcast to its shape."""
        if value is None or value not in self.table.reached:
            return
        put, shape, dtype = self.put(value), self.table.shapes[value], self.table.dtypes[value]
        self.instructions.append(
            lambda buffers: put(buffers, source(buffers).sum_to_size(shape).to(dtype), False)
        )

    def _add_number(self, value: int, scale: float, source: int) -> None:
        part = self.table.parts.get(source)
        if part is not None and part.call is None and part.base == value:
            return  # they share a buffer
        put = self.put(value)
        if scale == 1.0:
            self.instructions.append(lambda buffers: put(buffers, buffers[source], False))
        else:
            self.instructions.append(lambda buffers: put(buffers, scale * buffers[source], True))

    def _add_wide(self, value: int, scale: Scale, source: int) -> None:
        key = ("wide", value)
        if value in self._wide:
            self.instructions.append(
                lambda buffers: _add_scaled_(buffers[key], scale, buffers[source])
            )
        else:
            self._wide.add(value)
            self.instructions.append(lambda buffers: _set(buffers, key, scale * buffers[source]))

    def _narrow(self, value: int) -> None:
        if value not in self._wide:
            return
        self._wide.remove(value)
        key = ("wide", value)
        self.add_rows(value, lambda buffers: buffers.pop(key))

    def _is_new(self, value: int) -> bool:
        """Whether a value has no buffer so far, and its buffer may be any tensor."""
        return not (value in self._held or value in self.blank or value in self.table.parts)

    def _fill(self, value: int) -> bool:
        """Give a value a buffer; whether it is blank, so that the caller must overwrite it."""
        if value in self._held:
            return False
        self._held.add(value)
        if value in self.blank:
            self.blank.remove(value)
            return True
        part = self.table.parts.get(value)
        if part is None:
            shape, dtype = self.table.shapes[value], self.table.dtypes[value]
            self.instructions.append(
                lambda buffers: _set(buffers, value, buffers[W].new_empty(shape, dtype=dtype))
            )
            return True
        blank = self._fill(part.base)
        if blank and not part.covers:
            self.instructions.append(lambda buffers: buffers[part.base].zero_())
            blank = False
        self._held.update(part.makes)
        self.instructions.append(
            lambda buffers: buffers.update(
                zip(part.makes, part.of(buffers[part.base]), strict=True)
            )
        )
        return blank


def _set(buffers: Buffers, key: Hashable, tensor: Tensor) -> None:
    buffers[key] = tensor


def _add_scaled_(buffer: Tensor, scale: Scale, cotangent: Tensor) -> Tensor:
    if isinstance(scale, Tensor):
        return buffer.addcmul_(scale, cotangent)
    return buffer.add_(cotangent, alpha=scale)

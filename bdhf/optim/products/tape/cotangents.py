"""Where cotangents lie on their way back along a tape, and how they are added: decided once.

Every value has one room, to which its readers add. The room of a part of a value (a gate of a
recurrent cell, a slice) lies in that of the whole, and the room of a parameter in the vector that
is asked for, so neither is put together from copies.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bdhf.optim.products.tape.calls import OperatorCall

Scale = Tensor | float
Rooms = dict[Hashable, Tensor]  # cotangents: of a value by its number, and that of the target by W
Instruction = Callable[[Rooms], object]
Put = Callable[[Rooms, Tensor, bool], object]

#: Where a sweep finds the cotangent that it begins with.
W = "w"


@dataclass(frozen=True)
class CotangentPart:
    """A value whose cotangent lies within that of another: a view of it, or the same numbers."""

    base: int
    makes: tuple[int, ...]  # all parts that are made at once
    covers: bool  # each of them is all of the base
    call: OperatorCall | None = None  # the view; None: the base itself

    def of(self, room: Tensor) -> Sequence[Tensor]:
        """The rooms of all parts, in that of the base."""
        if self.call is None:
            return [room]
        made = self.call.func(room, *self.call.args[1:], **self.call.kwargs)
        return [made] if isinstance(made, Tensor) else list(made)


@dataclass(frozen=True)
class ValueTable:
    """What is known of the values of a replay before any cotangent comes."""

    shapes: Mapping[int, torch.Size]
    dtypes: Mapping[int, torch.dtype]
    parts: dict[int, CotangentPart]
    once: Set[int]  # values to whose cotangent one tensor is added, and no more
    reached: Set[int]  # values that depend on the sources; no other gets a cotangent

    def alike(self, value: int, source: int, scale: Scale) -> bool:
        """Whether scale ∘ (a cotangent of `value`) is one of `source`, number by number."""
        plain = not isinstance(scale, Tensor) and scale == 1.0
        shape = self.shapes[value] == self.shapes[source]
        return plain and shape and self.dtypes[value] == self.dtypes[source]


@dataclass
class WayBack:
    """The instructions of one sweep back, given out reader by reader; `blank` rooms hold nothing.

    `like` has the device of all tensors. Between two of its methods a value is new (no room yet),
    blank (its room must be filled at once), or held (what comes is added).
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
        """Whether a value, whose readers have all added theirs, has a cotangent."""
        self._narrow(value)
        return value in self._held

    def finish(self) -> None:
        """Sum what was broadcast, and set to zero what nothing was added to."""
        for value in list(self._wide):
            self._narrow(value)
        empty, self.blank = sorted(self.blank), set()
        self.instructions.append(lambda rooms: [rooms[value].zero_() for value in empty])

    def keep(self, value: int) -> None:
        """Let a cotangent live until `let_go` is called on it again."""
        self._kept.add(value)

    def let_go(self, values: Sequence[int]) -> None:
        """Free cotangents that have been taken."""
        gone = [value for value in values if value in self._held and value not in self._kept]
        self._kept -= set(values)
        if len(gone) == 1:
            (value,) = gone
            self.instructions.append(lambda rooms: rooms.pop(value))
        elif gone:
            self.instructions.append(lambda rooms: [rooms.pop(value) for value in gone])

    def put(self, value: int) -> Put:
        """How to add a tensor, of the shape of the value; the flag says that no one else reads it.

        What comes next to the value comes after it.
        """
        if self._is_new(value):
            self._held.add(value)
            shared = value in self.table.once

            def keep(rooms: Rooms, cotangent: Tensor, own: bool) -> None:
                rooms[value] = cotangent if own or shared else cotangent.clone()

            return keep
        if self._fill(value):
            return lambda rooms, cotangent, own: rooms[value].copy_(cotangent)
        return lambda rooms, cotangent, own: rooms[value].add_(cotangent)

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
            self.instructions.append(lambda rooms: _set(rooms, value, scale * rooms[source]))
        elif self._fill(value):
            self.instructions.append(
                lambda rooms: torch.mul(scale, rooms[source], out=rooms[value])
            )
        else:
            self.instructions.append(lambda rooms: rooms[value].addcmul_(scale, rooms[source]))

    def add_product(
        self, value: int | None, a: Callable[[Rooms], Tensor], b: Callable[[Rooms], Tensor]
    ) -> None:
        """Add the matrix product a b."""
        if value is None or value not in self.table.reached:
            return
        if self._is_new(value):
            self._held.add(value)
            self.instructions.append(lambda rooms: _set(rooms, value, a(rooms) @ b(rooms)))
        elif self._fill(value):
            self.instructions.append(lambda rooms: torch.mm(a(rooms), b(rooms), out=rooms[value]))
        else:
            self.instructions.append(lambda rooms: rooms[value].addmm_(a(rooms), b(rooms)))

    def add_rows(self, value: int | None, source: Callable[[Rooms], Tensor]) -> None:
        """Add a tensor to a value that was broadcast to its shape."""
        if value is None or value not in self.table.reached:
            return
        put, shape, dtype = self.put(value), self.table.shapes[value], self.table.dtypes[value]
        self.instructions.append(
            lambda rooms: put(rooms, source(rooms).sum_to_size(shape).to(dtype), False)
        )

    def _add_number(self, value: int, scale: float, source: int) -> None:
        part = self.table.parts.get(source)
        if part is not None and part.call is None and part.base == value:
            return  # they share a room
        put = self.put(value)
        if scale == 1.0:
            self.instructions.append(lambda rooms: put(rooms, rooms[source], False))
        else:
            self.instructions.append(lambda rooms: put(rooms, scale * rooms[source], True))

    def _add_wide(self, value: int, scale: Scale, source: int) -> None:
        key = ("wide", value)
        if value in self._wide:
            self.instructions.append(lambda rooms: _add_scaled_(rooms[key], scale, rooms[source]))
        else:
            self._wide.add(value)
            self.instructions.append(lambda rooms: _set(rooms, key, scale * rooms[source]))

    def _narrow(self, value: int) -> None:
        if value not in self._wide:
            return
        self._wide.remove(value)
        key = ("wide", value)
        self.add_rows(value, lambda rooms: rooms.pop(key))

    def _is_new(self, value: int) -> bool:
        """Whether a value has no room yet, and its room may lie anywhere."""
        return not (value in self._held or value in self.blank or value in self.table.parts)

    def _fill(self, value: int) -> bool:
        """Make sure that a value has a room; whether it is blank, and is now taken to be filled."""
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
                lambda rooms: _set(rooms, value, rooms[W].new_empty(shape, dtype=dtype))
            )
            return True
        blank = self._fill(part.base)
        if blank and not part.covers:
            self.instructions.append(lambda rooms: rooms[part.base].zero_())
            blank = False
        self._held.update(part.makes)
        self.instructions.append(
            lambda rooms: rooms.update(zip(part.makes, part.of(rooms[part.base]), strict=True))
        )
        return blank


def _set(rooms: Rooms, key: Hashable, tensor: Tensor) -> None:
    rooms[key] = tensor


def _add_scaled_(room: Tensor, scale: Scale, cotangent: Tensor) -> Tensor:
    if isinstance(scale, Tensor):
        return room.addcmul_(scale, cotangent)
    return room.add_(cotangent, alpha=scale)

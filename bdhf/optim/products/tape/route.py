"""The part of a tape between some values and another, for JVPs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from bdhf.optim.products.tape.jvp_rules import tangent_of
from bdhf.optim.products.tape.tape import Tape, TapeEntry


@dataclass(frozen=True)
class Route:
    """The operators of a tape between some values and another."""

    entries: tuple[TapeEntry, ...]
    target: int

    def __call__(self, tangents: dict[int, Tensor]) -> Tensor | None:
        """The tangent of the target; None where it is zero. `tangents` are those of the values."""
        tangents = dict(tangents)
        for entry in self.entries:
            arriving = [None if read is None else tangents.get(read) for read in entry.reads]
            made = tangent_of(entry.call, arriving)
            for value, tangent in zip(entry.makes, made, strict=True):
                if tangent is not None:
                    tangents[value] = tangent
        return tangents.get(self.target)


def route(tape: Tape, sources: Iterable[int], target: int) -> Route:
    """Find the operators through which tangents of the sources reach the target."""
    reached, ahead = set(sources), []
    for entry in tape.entries:
        if any(read in reached for read in entry.reads):
            reached.update(entry.makes)
            ahead.append(entry)
    needed, behind = {target}, []
    for entry in reversed(ahead):
        if any(value in needed for value in entry.makes):
            needed.update(read for read in entry.reads if read is not None)
            behind.append(entry)
    return Route(tuple(reversed(behind)), target)

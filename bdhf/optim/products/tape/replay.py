"""A route of a tape prepared for many replays, forward for J v and back for Jᵀw.

`condensing.py` joins its operators to fewer and larger steps, once per linearisation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bdhf.optim.products.tape.calls import Hollow, results
from bdhf.optim.products.tape.condensing import steps_of
from bdhf.optim.products.tape.cotangents import (
    Buffers,
    CotangentPart,
    Instruction,
    ValueTable,
    W,
    WayBack,
)
from bdhf.optim.products.tape.route import Route
from bdhf.optim.products.tape.steps import Step, SumStep
from bdhf.optim.products.tape.tape import TapeEntry
from bdhf.optim.products.tape.vjp_rules import COVERING, PARTIAL


class Replay:
    """J v and Jᵀw between some parameters and a route's target, by prepared steps."""

    @torch.no_grad()
    def __init__(self, path: Route, sources: Mapping[int, Tensor]) -> None:
        """`sources` are the parameters, or tensors of their shapes, by number."""
        self.target = path.target
        self._sources = dict(sources)
        self.steps = steps_of(path)
        last = {read: at for at, step in enumerate(self.steps) for read in step.reads}
        self._done = [
            [
                read
                for read in dict.fromkeys(step.reads)
                if read is not None and last[read] == at and read != self.target
            ]
            for at, step in enumerate(self.steps)
        ]
        self._entries = path.entries
        self._way: list[Instruction] | None = None

    @property
    def condensed(self) -> bool:
        """Whether it takes at most half as many steps as there were operators."""
        return 2 * len(self.steps) <= len(self._entries)

    @torch.no_grad()
    def push(self, tangents: Mapping[int, Tensor]) -> Tensor | None:
        """J v for tangents v of the sources; None where it is zero."""
        values = dict(tangents)
        for step, done in zip(self.steps, self._done, strict=True):
            step.push(values)
            for value in done:  # frees its memory
                values.pop(value, None)
        return values.get(self.target)

    @torch.no_grad()
    def pull(self, w: Tensor, buffers: Mapping[int, Tensor]) -> None:
        """Jᵀw, written into the buffer of each source."""
        if self._way is None:
            self._way = self._back(w)
        held: Buffers = {W: w, **dict(buffers.items())}
        for instruction in self._way:
            instruction(held)

    def _back(self, w: Tensor) -> list[Instruction]:
        """The sweep back, step by step."""
        table = self._table()
        way = WayBack(table, set(self._sources), w)
        if self.target in table.reached:
            put = way.put(self.target)  # w itself, or its copy where the target is part of a value
            way.instructions.append(lambda buffers: put(buffers, buffers[W], False))
        for step in reversed(self.steps):
            step.back(way)
            way.let_go(step.makes)
        way.finish()
        return way.instructions

    def _table(self) -> ValueTable:
        made: dict[int, Tensor | Hollow] = {
            value: result
            for entry in self._entries
            for value, result in zip(entry.makes, results(entry.call), strict=True)
        }
        every = {**self._sources, **made}
        counts = Counter(read for step in self.steps for read in step.reads if read is not None)
        counts[self.target] += 1  # w
        table = ValueTable(
            shapes={value: tensor.shape for value, tensor in every.items()},
            dtypes={value: tensor.dtype for value, tensor in every.items()},
            parts=_views(self._entries, self._sources),
            once={value for value, count in counts.items() if count == 1},
            reached=frozenset(every),
        )
        return replace(table, parts=table.parts | _shared(self.steps, table))


def _views(entries: Sequence[TapeEntry], sources: Iterable[int]) -> dict[int, CotangentPart]:
    """Values whose cotangent is part of that of another: slices, and views of parameters."""
    parts: dict[int, CotangentPart] = {}
    rooted = set(sources)
    for entry in entries:
        call, base = entry.call, entry.reads[0]
        covers = call.func in COVERING and base in rooted
        if covers:
            rooted.update(entry.makes)
        if base is not None and (covers or call.func in PARTIAL):
            parts |= dict.fromkeys(entry.makes, CotangentPart(base, entry.makes, covers, call))
    return parts


def _shared(steps: Iterable[Step], table: ValueTable) -> dict[int, CotangentPart]:
    """Sums with a term that is a part, unscaled and without other readers: one buffer for both."""
    parts: dict[int, CotangentPart] = {}
    for step in steps:
        if not isinstance(step, SumStep):
            continue
        (value,) = step.makes
        for source, scale in step.pairs:
            if source in table.parts and source in table.once and table.alike(value, source, scale):
                parts[value] = CotangentPart(source, (value,), covers=True)
                break
    return parts

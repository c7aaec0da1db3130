"""A route of a tape made ready to be replayed many times: fewer and larger operators.

The tape is linear in its tangents, so what does not depend on them is worked out once a
linearisation. Chains of elementwise operators become one sum of scaled tangents,

    ∂y = Σ_k s_k ∘ ∂x_k,    s_k the product of the derivatives on the way from x_k to y

and the matrix products of one weight with many inputs, the steps of a recurrent layer, become one
product with all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bdhf.optim.products.cotangents import Instruction, Known, Part, Rooms, Scale, Way
from bdhf.optim.products.steps import Batch, BatchStep, RuleStep, Step, SumStep, Terms
from bdhf.optim.products.tangents import Call, Hollow
from bdhf.optim.products.tape import Entry, Route
from bdhf.optim.products.transposes import COVERING, PARTIAL

aten = torch.ops.aten


class Replay:
    """J v and Jᵀw between some parameters and a route's target, by steps that were made once."""

    @torch.no_grad()
    def __init__(self, path: Route, sources: Mapping[int, Tensor]) -> None:
        """`sources` are the parameters, or what has their shapes, by number."""
        self.target = path.target
        self._sources = dict(sources)
        self.steps = _Scheduler(path).steps
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
        """Whether it takes half as many steps as there were operators, or fewer."""
        return 2 * len(self.steps) <= len(self._entries)

    @torch.no_grad()
    def push(self, tangents: Mapping[int, Tensor]) -> Tensor | None:
        """J v for tangents v of the sources; None where it is zero."""
        values = dict(tangents)
        for step, done in zip(self.steps, self._done, strict=True):
            step.push(values)
            for value in done:  # so that its memory is free again
                values.pop(value, None)
        return values.get(self.target)

    @torch.no_grad()
    def pull(self, w: Tensor, rooms: Mapping[int, Tensor]) -> None:
        """Jᵀw, written into a room for each source."""
        if self._way is None:
            self._way = self._back(w)
        held: Rooms = {"w": w, **dict(rooms.items())}
        for instruction in self._way:
            instruction(held)

    def _back(self, w: Tensor) -> list[Instruction]:
        """The sweep back, step by step."""
        known = self._known()
        way = Way(known, set(self._sources))
        if self.target in known.reached:
            put = way.put(self.target)  # w itself, or its copy within what the target is part of
            way.instructions.append(lambda rooms: put(rooms, rooms["w"], False))
        for step in reversed(self.steps):
            step.back(way, w)
            way.let_go(step.makes)
        way.finish()
        return way.instructions

    def _known(self) -> Known:
        shapes = {source: tensor.shape for source, tensor in self._sources.items()}
        dtypes = {source: tensor.dtype for source, tensor in self._sources.items()}
        reached = {*self._sources, *(value for entry in self._entries for value in entry.makes)}
        rooted, parts = set(self._sources), dict[int, Part]()
        for entry in self._entries:
            call, base = entry.call, entry.reads[0]
            results = call.result if isinstance(call.result, (tuple, list)) else [call.result]
            made = [x for x in results if isinstance(x, (Tensor, Hollow))]
            for value, result in zip(entry.makes, made, strict=True):
                shapes[value], dtypes[value] = result.shape, result.dtype
            covers = call.func in COVERING and base in rooted
            if base is not None and (covers or call.func in PARTIAL):
                parts |= dict.fromkeys(entry.makes, Part(base, entry.makes, covers, call))
            if covers:
                rooted.update(entry.makes)
        counts = Counter(read for step in self.steps for read in step.reads if read is not None)
        once = {value for value, count in counts.items() if count == 1} - {self.target}
        once |= set() if counts[self.target] else {self.target}
        for step in self.steps:
            if isinstance(step, SumStep):
                (value,) = step.makes
                for source, scale in step.pairs:
                    if source not in reached:
                        continue
                    same = not isinstance(scale, Tensor) and scale == 1.0
                    alike = shapes[source] == shapes[value] and dtypes[source] == dtypes[value]
                    if same and alike and source in once and source in parts:
                        parts[value] = Part(source, (value,), covers=True)
                        break
        return Known(shapes, dtypes, parts, once, reached)


@dataclass
class _Sum:
    """An elementwise operator that has not become a step yet."""

    entry: Entry
    terms: Terms | None = None  # worked out when it is first joined to another


@dataclass
class _Scheduler:
    """Walks along a route once, and makes its steps."""

    path: Route
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._uses = Counter(read for entry in self.path.entries for read in entry.reads)
        self._uses[self.path.target] += 2  # what is asked for is made for itself
        self._waiting: dict[int, _Sum] = {}
        self._batches = _batches(self.path.entries)
        for entry in self.path.entries:
            if entry.call.func in ELEMENTWISE and _plain(entry.call):
                self._waiting[entry.makes[0]] = _Sum(entry)
            else:
                self._emit_reads(entry)
                self.steps.append(self._batches.get(id(entry)) or RuleStep(entry))
        self._emit(self.path.target)

    def _emit_reads(self, entry: Entry) -> None:
        for read in entry.reads:
            if read is not None:
                self._emit(read)

    def _emit(self, value: int) -> None:
        """Make a step of a sum that is needed now."""
        waiting = self._waiting.get(value)
        if waiting is None:
            return
        terms = self._joined(waiting)
        del self._waiting[value]
        for read in terms if terms is not None else waiting.entry.reads:
            if read is not None:
                self._emit(read)
        if terms is None and waiting.entry.call.func in LINEAR:
            terms = _summed(waiting.entry, {})
        if terms is None:
            self.steps.append(RuleStep(waiting.entry))
        else:
            self.steps.append(SumStep(value, terms, waiting.entry.call.result.shape))

    def _joined(self, waiting: _Sum) -> Terms | None:
        """The terms of a sum with those of its parts put in; None if no part can be."""
        if waiting.terms is not None:
            return waiting.terms
        reads = [read for read in waiting.entry.reads if read is not None]
        parts = {read: self._part(read) for read in reads}
        if all(part is None for part in parts.values()):
            return None
        waiting.terms = _summed(waiting.entry, parts)
        return waiting.terms

    def _part(self, value: int) -> Terms | None:
        """The terms of a part that costs nothing more when it is put in where it is used."""
        waiting = self._waiting.get(value)
        if waiting is None:
            return None
        terms = self._joined(waiting)
        reads = {read for read in waiting.entry.reads if read is not None}
        if self._uses[value] > 1 and len(reads if terms is None else terms) > 1:
            return None
        if terms is None:
            terms = waiting.terms = _summed(waiting.entry, {})
        return terms


def _summed(entry: Entry, parts: Mapping[int, Terms | None]) -> Terms:
    """The terms of an elementwise operator, with those of its parts put in."""
    terms: Terms = {}
    for read, scale in _partials(entry):
        for value, inner in (parts.get(read) or {read: 1.0}).items():
            made = _times(scale, inner)
            terms[value] = made if value not in terms else terms[value] + made
    return terms


def _times(a: Scale, b: Scale) -> Scale:
    if isinstance(a, float) and a == 1.0:
        return b
    return a if isinstance(b, float) and b == 1.0 else a * b


def _plain(call: Call) -> bool:
    """Whether all tensors of an elementwise operator have the dtype of its result."""
    kinds = {x.dtype for x in (*call.args[:2], call.result) if hasattr(x, "dtype")}
    return len(kinds) == 1


def _partials(entry: Entry) -> list[tuple[int, Scale]]:
    """What an elementwise operator multiplies the tangent of each value by that it reads."""
    call = entry.call
    operands = [x for x in call.args[:2] if hasattr(x, "dtype")]
    scales = ELEMENTWISE[call.func](call, len(operands))
    return [
        (read, scale) for read, scale in zip(entry.reads, scales, strict=True) if read is not None
    ]


def _of_sum(sign: float) -> Callable[[Call, int], list[Scale]]:
    def scales(call: Call, operands: int) -> list[Scale]:
        alpha = sign * float(call.kwargs.get("alpha", 1))
        if operands == 1:
            return [1.0 if hasattr(call.args[0], "dtype") else alpha]
        return [1.0, alpha]

    return scales


def _of_product(call: Call, operands: int) -> list[Scale]:
    a, b = call.args
    if operands == 1:
        return [float(b) if isinstance(a, Tensor) else float(a)]
    return [b, a]


#: Elementwise operator -> what it multiplies the tangents by, one scale a tensor that it reads.
ELEMENTWISE: dict[object, Callable[[Call, int], list[Scale]]] = {
    aten.add.Tensor: _of_sum(1.0),
    aten.sub.Tensor: _of_sum(-1.0),
    aten.mul.Tensor: _of_product,
    aten.tanh.default: lambda call, _: [1 - call.result.square()],
    aten.sigmoid.default: lambda call, _: [call.result * (1 - call.result)],
    aten.relu.default: lambda call, _: [(call.result > 0).to(call.result.dtype)],
}


#: Those of them whose scales cost nothing to make.
LINEAR = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor}


def _batches(entries: Sequence[Entry]) -> dict[int, Step]:
    """Steps for products of one weight with several inputs, by the identity of their entries."""
    families: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        if entry.call.func is aten.addmm.default and not entry.call.kwargs:
            bias, _, weight = entry.reads
            if weight is not None:
                families.setdefault((bias, weight), []).append(entry)
    return {
        id(entry): BatchStep(batch, index, entry)
        for members in families.values()
        if len(members) > 1
        for batch in [Batch(members)]
        for index, entry in enumerate(members)
    }

"""A route of a tape made ready to be replayed many times: fewer and larger operators.

The tape is linear in its tangents, so what does not depend on them is worked out once a
linearisation. Chains of elementwise operators become one sum of scaled tangents,

    ∂y = Σ_k s_k ∘ ∂x_k,    s_k the product of the derivatives on the way from x_k to y

and the matrix products of one weight with many inputs, the steps of a recurrent layer, become one
product with all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bdhf.optim.products.tape.cotangents import Instruction, Known, Part, Rooms, Scale, W, WayBack
from bdhf.optim.products.tape.jvp_rules import Call, Hollow, results
from bdhf.optim.products.tape.steps import Batch, BatchStep, RuleStep, Step, SumStep, Terms
from bdhf.optim.products.tape.tape import Entry, Route
from bdhf.optim.products.tape.vjp_rules import COVERING, PARTIAL

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
        held: Rooms = {W: w, **dict(rooms.items())}
        for instruction in self._way:
            instruction(held)

    def _back(self, w: Tensor) -> list[Instruction]:
        """The sweep back, step by step."""
        known = self._known()
        way = WayBack(known, set(self._sources), w)
        if self.target in known.reached:
            put = way.put(self.target)  # w itself, or its copy within what the target is part of
            way.instructions.append(lambda rooms: put(rooms, rooms[W], False))
        for step in reversed(self.steps):
            step.back(way)
            way.let_go(step.makes)
        way.finish()
        return way.instructions

    def _known(self) -> Known:
        made: dict[int, Tensor | Hollow] = {
            value: result
            for entry in self._entries
            for value, result in zip(entry.makes, results(entry.call), strict=True)
        }
        every = {**self._sources, **made}
        counts = Counter(read for step in self.steps for read in step.reads if read is not None)
        counts[self.target] += 1  # w
        known = Known(
            shapes={value: tensor.shape for value, tensor in every.items()},
            dtypes={value: tensor.dtype for value, tensor in every.items()},
            parts=_views(self._entries, self._sources),
            once={value for value, count in counts.items() if count == 1},
            reached=frozenset(every),
        )
        return replace(known, parts=known.parts | _shared(self.steps, known))


def _views(entries: Sequence[Entry], sources: Iterable[int]) -> dict[int, Part]:
    """Values whose cotangent lies within that of another: slices, and views of parameters."""
    parts: dict[int, Part] = {}
    rooted = set(sources)
    for entry in entries:
        call, base = entry.call, entry.reads[0]
        covers = call.func in COVERING and base in rooted
        if covers:
            rooted.update(entry.makes)
        if base is not None and (covers or call.func in PARTIAL):
            parts |= dict.fromkeys(entry.makes, Part(base, entry.makes, covers, call))
    return parts


def _shared(steps: Iterable[Step], known: Known) -> dict[int, Part]:
    """Sums with a term that is a part, not scaled and read by nobody else: one room for both."""
    parts: dict[int, Part] = {}
    for step in steps:
        if not isinstance(step, SumStep):
            continue
        (value,) = step.makes
        for source, scale in step.pairs:
            if source in known.parts and source in known.once and known.alike(value, source, scale):
                parts[value] = Part(source, (value,), covers=True)
                break
    return parts


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

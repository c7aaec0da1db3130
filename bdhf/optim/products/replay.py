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
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from bdhf.optim.products.tangents import Call, tangent_of
from bdhf.optim.products.tape import Entry, Route

aten = torch.ops.aten

Scale = Tensor | float
Terms = dict[int, Scale]  # number of a value -> what its tangent is multiplied by
Values = dict[int, Tensor]  # tangents, by the number of the value

Step = Callable[[Values], None]


class Replay:
    """The tangent of a route's target, by steps that were made once."""

    def __init__(self, path: Route) -> None:
        self.target = path.target
        steps = _Scheduler(path).steps
        last = {read: at for at, (_, reads) in enumerate(steps) for read in reads}
        self._steps = [
            (step, [read for read in reads if last[read] == at and read != self.target])
            for at, (step, reads) in enumerate(steps)
        ]

    def __call__(self, tangents: Values) -> Tensor | None:
        """J v for tangents v of the sources; None where it is zero."""
        values = dict(tangents)
        for step, done in self._steps:
            step(values)
            for value in done:  # so that its memory is free again
                values.pop(value, None)
        return values.get(self.target)


@dataclass
class _Sum:
    """An elementwise operator that has not become a step yet."""

    entry: Entry
    terms: Terms | None = None  # worked out when it is first joined to another


@dataclass
class _Scheduler:
    """Walks along a route once, and makes its steps."""

    path: Route
    steps: list[tuple[Step, list[int]]] = field(default_factory=list)  # with what each reads

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
                self._add(self._batches.get(id(entry)) or _by_rule(entry), entry.reads)
        self._emit(self.path.target)

    def _add(self, step: Step, reads: Iterable[int | None]) -> None:
        self.steps.append((step, [read for read in dict.fromkeys(reads) if read is not None]))

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
        if terms is None:
            self._add(_by_rule(waiting.entry), waiting.entry.reads)
        else:
            self._add(_by_terms(value, terms, waiting.entry.call.result.shape), terms)

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


def _by_rule(entry: Entry) -> Step:
    """A step that runs an operator's own rule."""
    call, reads, makes = entry.call, entry.reads, entry.makes

    def step(values: Values) -> None:
        given = [None if read is None else values.get(read) for read in reads]
        if all(tangent is None for tangent in given):
            return
        for value, tangent in zip(makes, tangent_of(call, given), strict=True):
            if tangent is not None:
                values[value] = tangent

    return step


def _by_terms(value: int, terms: Terms, shape: torch.Size) -> Step:
    """A step that adds up scaled tangents."""
    pairs = sorted(terms.items(), key=lambda pair: not isinstance(pair[1], Tensor))

    def step(values: Values) -> None:
        total: Tensor | None = None
        for source, scale in pairs:
            tangent = values.get(source)
            if tangent is None:
                continue
            if total is None:
                total = scale * tangent
                if total.shape != shape:
                    total = total.expand(shape).clone()
            elif isinstance(scale, Tensor):
                total.addcmul_(scale, tangent)
            else:
                total.add_(tangent, alpha=scale)
        if total is not None:
            values[value] = total

    return step


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


def _batches(entries: Sequence[Entry]) -> dict[int, Step]:
    """Steps for products of one weight with several inputs, by the identity of their entries."""
    families: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        if entry.call.func is aten.addmm.default and not entry.call.kwargs:
            bias, _, weight = entry.reads
            if weight is not None:
                families.setdefault((bias, weight), []).append(entry)
    return {
        id(entry): _one_of_many(batch, index, entry)
        for members in families.values()
        if len(members) > 1
        for batch in [_Batch(members)]
        for index, entry in enumerate(members)
    }


class _Batch:
    """x_t ∂W + ∂b for all inputs x_t of one weight at once."""

    def __init__(self, members: Sequence[Entry]) -> None:
        self._members = members
        self.bias, _, self.weight = members[0].reads
        self._sizes = [len(entry.call.args[1]) for entry in members]
        self._parts: Sequence[Tensor] = ()

    @cached_property
    def _inputs(self) -> Tensor:
        return torch.cat([entry.call.args[1] for entry in self._members])

    def part(self, index: int, values: Values) -> Tensor | None:
        """That of one input; the first one that is asked for makes all."""
        weight, bias = values.get(self.weight or 0), None
        if self.bias is not None:
            bias = values.get(self.bias)
        if weight is None:
            return bias
        if index == 0:
            made = (
                self._inputs @ weight if bias is None else torch.addmm(bias, self._inputs, weight)
            )
            self._parts = made.split(self._sizes)
        part = self._parts[index]
        if index == len(self._sizes) - 1:
            self._parts = ()
        return part


def _one_of_many(batch: _Batch, index: int, entry: Entry) -> Step:
    _, moved, _ = entry.reads
    target, weight = entry.makes[0], entry.call.args[2]

    def step(values: Values) -> None:
        made = batch.part(index, values)
        tangent = None if moved is None else values.get(moved)
        if tangent is not None and made is not None:
            made = torch.addmm(made, tangent, weight)
        elif tangent is not None:
            made = tangent @ weight
        if made is not None:
            values[target] = made

    return step

"""A route of a tape as fewer and larger steps: elementwise chains and products of one weight.

The tape is linear in its tangents, so what does not depend on them is computed once per
linearisation. Chains of elementwise operators become one sum of scaled tangents,

    ∂y = Σ_k s_k ∘ ∂x_k,    s_k the product of the derivatives between x_k and y

and the matrix products of one weight with many inputs, the steps of a recurrent layer, become one
product with all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bdhf.optim.products.tape.calls import OperatorCall
from bdhf.optim.products.tape.cotangents import Scale
from bdhf.optim.products.tape.route import Route
from bdhf.optim.products.tape.steps import (
    BatchedProducts,
    BatchStep,
    RuleStep,
    Step,
    SumStep,
    Terms,
)
from bdhf.optim.products.tape.tape import TapeEntry

aten = torch.ops.aten


def steps_of(path: Route) -> list[Step]:
    """The steps of a route, in order."""
    return _Scheduler(path).steps


@dataclass
class _Sum:
    """An elementwise operator without a step so far."""

    entry: TapeEntry
    terms: Terms | None = None  # computed when it is first joined to another


@dataclass
class _Scheduler:
    """Makes the steps of a route in one pass."""

    path: Route
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._uses = Counter(read for entry in self.path.entries for read in entry.reads)
        self._uses[self.path.target] += 2  # the target gets its own step
        self._waiting: dict[int, _Sum] = {}
        self._batches = _batches(self.path.entries)
        for entry in self.path.entries:
            if entry.call.func in _ELEMENTWISE and _plain(entry.call):
                self._waiting[entry.makes[0]] = _Sum(entry)
            else:
                self._emit_reads(entry)
                self.steps.append(self._batches.get(id(entry)) or RuleStep(entry))
        self._emit(self.path.target)

    def _emit_reads(self, entry: TapeEntry) -> None:
        for read in entry.reads:
            if read is not None:
                self._emit(read)

    def _emit(self, value: int) -> None:
        """Make a step of a pending sum."""
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
        """The terms of a sum with those of its parts inlined; None if no part can be."""
        if waiting.terms is not None:
            return waiting.terms
        reads = [read for read in waiting.entry.reads if read is not None]
        parts = {read: self._part(read) for read in reads}
        if all(part is None for part in parts.values()):
            return None
        waiting.terms = _summed(waiting.entry, parts)
        return waiting.terms

    def _part(self, value: int) -> Terms | None:
        """The terms of a part whose inlining costs nothing; else None."""
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


def _summed(entry: TapeEntry, parts: Mapping[int, Terms | None]) -> Terms:
    """The terms of an elementwise operator, with those of its parts inlined."""
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


def _plain(call: OperatorCall) -> bool:
    """Whether all tensors of an elementwise operator have the dtype of its result."""
    kinds = {x.dtype for x in (*call.args[:2], call.result) if hasattr(x, "dtype")}
    return len(kinds) == 1


def _partials(entry: TapeEntry) -> list[tuple[int, Scale]]:
    """The factor of the tangent of each value that an elementwise operator reads."""
    call = entry.call
    operands = [x for x in call.args[:2] if hasattr(x, "dtype")]
    scales = _ELEMENTWISE[call.func](call, len(operands))
    return [
        (read, scale) for read, scale in zip(entry.reads, scales, strict=True) if read is not None
    ]


def _of_sum(sign: float) -> Callable[[OperatorCall, int], list[Scale]]:
    def scales(call: OperatorCall, operands: int) -> list[Scale]:
        alpha = sign * float(call.kwargs.get("alpha", 1))
        if operands == 1:
            return [1.0 if hasattr(call.args[0], "dtype") else alpha]
        return [1.0, alpha]

    return scales


def _of_product(call: OperatorCall, operands: int) -> list[Scale]:
    a, b = call.args
    if operands == 1:
        return [float(b) if isinstance(a, Tensor) else float(a)]
    return [b, a]


#: Elementwise operator -> the factors of the tangents, one per tensor that it reads.
_ELEMENTWISE: dict[object, Callable[[OperatorCall, int], list[Scale]]] = {
    aten.add.Tensor: _of_sum(1.0),
    aten.sub.Tensor: _of_sum(-1.0),
    aten.mul.Tensor: _of_product,
    aten.tanh.default: lambda call, _: [1 - call.result.square()],
    aten.sigmoid.default: lambda call, _: [call.result * (1 - call.result)],
    aten.relu.default: lambda call, _: [(call.result > 0).to(call.result.dtype)],
}


#: Those whose factors cost nothing to compute.
LINEAR = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor}


def _batches(entries: Sequence[TapeEntry]) -> dict[int, Step]:
    """Steps for products of one weight with several inputs, by the identity of their entries."""
    families: dict[tuple[object, ...], list[TapeEntry]] = {}
    for entry in entries:
        if entry.call.func is aten.addmm.default and not entry.call.kwargs:
            bias, _, weight = entry.reads
            if weight is not None:
                families.setdefault((bias, weight), []).append(entry)
    return {
        id(entry): BatchStep(batch, index, entry)
        for members in families.values()
        if len(members) > 1
        for batch in [BatchedProducts(members)]
        for index, entry in enumerate(members)
    }

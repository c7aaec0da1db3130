"""The steps of a replay: linear maps of tangents, each with its transpose.

forward  ∂y = Σ_k A_k ∂x_k,    back  w_k += A_kᵀ w    for the values x_k that it reads
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from bdhf.optim.products.tape.cotangents import Buffers, Scale, WayBack
from bdhf.optim.products.tape.jvp_rules import tangent_of
from bdhf.optim.products.tape.tape import TapeEntry
from bdhf.optim.products.tape.vjp_rules import TRANSPOSES, by_reverse_mode

ValueTangents = dict[int, Tensor]  # tangents, by the number of the value
Terms = dict[int, Scale]  # number of a value -> what its tangent is multiplied by


class Step(Protocol):
    """One linear map from the values that it reads to those that it makes."""

    @property
    def reads(self) -> Sequence[int | None]:
        """Values, by number; one for each occurrence."""

    @property
    def makes(self) -> Sequence[int]:
        """Values, by number."""

    def push(self, values: ValueTangents) -> None:
        """Add the tangents of what it makes; none where they are zero."""

    def back(self, way: WayBack) -> None:
        """Add the instructions for the cotangents of what it reads."""


class RuleStep:
    """An operator by its rules in the tables."""

    def __init__(self, entry: TapeEntry) -> None:
        self._call, self.reads, self.makes = entry.call, entry.reads, entry.makes

    def push(self, values: ValueTangents) -> None:
        """By the rule of `jvp_rules`."""
        arriving = [None if read is None else values.get(read) for read in self.reads]
        if all(tangent is None for tangent in arriving):
            return
        for value, tangent in zip(self.makes, tangent_of(self._call, arriving), strict=True):
            if tangent is not None:
                values[value] = tangent

    def back(self, way: WayBack) -> None:
        """By the rule of `vjp_rules`, else by reverse mode."""
        held = [way.take(value) for value in self.makes]
        if all(value in way.table.parts for value in self.makes) or not any(held):
            return  # they are views of the right buffer, or there are none
        transpose = TRANSPOSES.get(self._call.func)
        if transpose is None or self._call.kwargs.keys() - {"dtype"}:
            by_reverse_mode(self._call, self.reads, self.makes, way)
        else:
            transpose(self._call, self.reads, self.makes[0], way)


class SumStep:
    """Σ_k s_k ∘ ∂x_k, a chain of elementwise operators."""

    def __init__(self, value: int, terms: Terms, shape: torch.Size) -> None:
        self.makes, self.reads = (value,), tuple(terms)
        self._shape = shape
        self.pairs = sorted(terms.items(), key=lambda pair: _is_number(pair[1]), reverse=True)

    def push(self, values: ValueTangents) -> None:
        """Term by term; an unscaled tangent takes no kernel."""
        total: Tensor | None = None
        own = False  # whether total may be written to
        for source, scale in self.pairs:
            tangent = values.get(source)
            if tangent is None:
                continue
            if total is None:
                own = isinstance(scale, Tensor) or scale != 1.0
                total = scale * tangent if own else tangent
                if total.shape != self._shape:
                    total, own = total.expand(self._shape), False
            elif isinstance(scale, Tensor):
                total = (total.addcmul_ if own else total.addcmul)(scale, tangent)
                own = True
            else:
                total = (total.add_ if own else total.add)(tangent, alpha=scale)
                own = True
        if total is not None:
            values[self.makes[0]] = total

    def back(self, way: WayBack) -> None:
        """The same scales."""
        (value,) = self.makes
        if way.take(value):
            for source, scale in self.pairs:
                way.add_scaled(source, scale, value)


def _is_number(scale: Scale) -> bool:
    return not isinstance(scale, Tensor)


class BatchedProducts:
    """c + a_t b for all inputs a_t of one weight b at once: the steps of a recurrent layer."""

    def __init__(self, members: Sequence[TapeEntry]) -> None:
        self._members = members
        self._bias, _, self._weight = members[0].reads
        self._sizes = [len(entry.call.args[1]) for entry in members]
        self._parts: Sequence[Tensor] = ()

    @cached_property
    def _inputs(self) -> Tensor:
        return torch.cat([entry.call.args[1] for entry in self._members])

    def part(self, index: int, values: ValueTangents) -> tuple[Tensor | None, bool]:
        """∂c + a_t ∂b of one input, and whether it may be written to; the first computes all."""
        weight = None if self._weight is None else values.get(self._weight)
        bias = None if self._bias is None else values.get(self._bias)
        if weight is None:
            return bias, False
        if index == 0:
            made = (
                self._inputs @ weight if bias is None else torch.addmm(bias, self._inputs, weight)
            )
            self._parts = made.split(self._sizes)
        part = self._parts[index]
        if index == len(self._sizes) - 1:
            self._parts = ()
        return part, True

    def back(self, way: WayBack) -> None:
        """To the weight and to c, from all members that have a cotangent, at once."""
        held = [member for member in self._members if way.take(member.makes[0])]
        if not held:
            return
        key, made = ("batch", id(self)), [member.makes[0] for member in held]
        inputs = self._inputs
        if len(held) < len(self._members):
            inputs = torch.cat([member.call.args[1] for member in held])

        def join(buffers: Buffers) -> None:
            buffers[key] = torch.cat([buffers[value] for value in made])

        way.instructions.append(join)
        way.add_product(self._weight, lambda buffers: inputs.t(), lambda buffers: buffers[key])
        way.add_rows(self._bias, lambda buffers: buffers[key])
        way.instructions.append(lambda buffers: buffers.pop(key))
        way.let_go(made)


class BatchStep:
    """One of a batch of `addmm`, plus the tangent through its own input."""

    def __init__(self, batch: BatchedProducts, index: int, entry: TapeEntry) -> None:
        self._batch, self._index = batch, index
        self.reads, self.makes = entry.reads, entry.makes
        self._weight, self._shape = entry.call.args[2], entry.call.result.shape

    def push(self, values: ValueTangents) -> None:
        """∂c + a ∂b + ∂a b."""
        made, own = self._batch.part(self._index, values)
        moved = self.reads[1]
        tangent = None if moved is None else values.get(moved)
        if tangent is not None and made is not None:
            if own:
                made = made.addmm_(tangent, self._weight)
            else:
                made = torch.addmm(made, tangent, self._weight)
        elif tangent is not None:
            made = tangent @ self._weight
        if made is not None:
            values[self.makes[0]] = made.expand(self._shape)  # the tangent of a bias alone is a row

    def back(self, way: WayBack) -> None:
        """W bᵀ to the input; the first, which is last in the sweep back, adds the rest."""
        (value,), moved = self.makes, self.reads[1]
        if way.take(value):
            way.add_product(moved, lambda buffers: buffers[value], lambda buffers: self._weight.t())
        way.keep(value)
        if self._index == 0:
            self._batch.back(way)

"""The transpose of the derivative of one operator: a table of rules, like that of `jvp_rules`.

A rule adds, once, the instructions that add w to the cotangents of the arguments. An operator
without one goes through reverse mode of its JVP rule, which is linear in its tangents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.products.tape.calls import OperatorCall
from bdhf.optim.products.tape.cotangents import Buffers, ValueTable, WayBack
from bdhf.optim.products.tape.jvp_rules import JVP_RULES, tangent_of

aten = torch.ops.aten

#: (call, values it reads, value it makes, the way back); for operators that make one tensor.
Transpose = Callable[[OperatorCall, Sequence[int | None], int, WayBack], None]


def _affine(call: OperatorCall, reads: Sequence[int | None], made: int, way: WayBack) -> None:
    """`addmm`: c + a b."""
    _, a, b = call.args
    c, *factors = reads
    way.add_rows(c, lambda buffers: buffers[made])
    _products(a, b, factors, made, way)


def _matrix(call: OperatorCall, reads: Sequence[int | None], made: int, way: WayBack) -> None:
    """`mm`: a b."""
    a, b = call.args
    _products(a, b, reads, made, way)


def _products(a: Any, b: Any, reads: Sequence[int | None], made: int, way: WayBack) -> None:
    way.add_product(reads[0], lambda buffers: buffers[made], lambda buffers: b.t())
    way.add_product(reads[1], lambda buffers: a.t(), lambda buffers: buffers[made])


def _through(map_back: Callable[[OperatorCall, Tensor], Tensor], own: bool) -> Transpose:
    """An operator of one tensor; `own`: the result of `map_back` shares no memory with w."""

    def transpose(call: OperatorCall, reads: Sequence[int | None], made: int, way: WayBack) -> None:
        (value,) = reads
        assert value is not None  # the only argument with a tangent
        put, dtype = way.put(value), way.table.dtypes[value]
        way.instructions.append(
            lambda buffers: put(buffers, map_back(call, buffers[made]).to(dtype), own)
        )

    return transpose


def _permuted_back(call: OperatorCall, w: Tensor) -> Tensor:
    order = [axis % w.dim() for axis in call.args[1]]
    return w.permute([order.index(axis) for axis in range(w.dim())])


_RESHAPED = _through(lambda call, w: w.reshape(call.args[0].shape), own=False)
_AGAIN = _through(lambda call, w: call.func(w, *call.args[1:]), own=False)

#: Views of all entries -> their inverse.
COVERING: Mapping[Any, Transpose] = {
    **dict.fromkeys(
        (
            aten.view.default, aten._unsafe_view.default, aten.squeeze.default, aten.squeeze.dim,
            aten.squeeze.dims, aten.unsqueeze.default,
        ),
        _RESHAPED,
    ),
    aten.t.default: _AGAIN,
    aten.transpose.int: _AGAIN,
    aten.permute.default: _through(_permuted_back, own=False),
}  # fmt: skip

#: Views of some entries, each of them once.
PARTIAL = {
    aten.select.int, aten.slice.Tensor, aten.split.Tensor, aten.split_with_sizes.default,
    aten.unbind.int,
}  # fmt: skip

#: Operators with a symmetric Jacobian: the JVP rule is its own transpose.
_SYMMETRIC = (
    aten.tanh.default, aten.tanh_.default, aten.sigmoid.default, aten.sigmoid_.default,
    aten.relu.default, aten.relu_.default, aten._softmax.default, aten._safe_softmax.default,
    aten.neg.default, aten.mul.Scalar, aten.div.Scalar,
)  # fmt: skip

#: Operator that makes one tensor -> its transpose.
TRANSPOSES: Mapping[Any, Transpose] = {
    **COVERING,
    **dict.fromkeys(_SYMMETRIC, _through(lambda call, w: JVP_RULES[call.func](call, w), own=True)),
    **dict.fromkeys(
        (aten.clone.default, aten._to_copy.default), _through(lambda call, w: w, own=False)
    ),
    aten.addmm.default: _affine,
    aten.mm.default: _matrix,
}


def by_reverse_mode(
    call: OperatorCall, reads: Sequence[int | None], makes: Sequence[int], way: WayBack
) -> None:
    """The transpose of any operator, by reverse mode of its JVP rule."""
    tangents_in = [_zeros(read, way.table, way.like) for read in reads]
    wanted = [(read, x) for read, x in zip(reads, tangents_in, strict=True) if x is not None]
    with torch.enable_grad():
        tangents = tangent_of(call.detached(), tangents_in)
    ends = [
        (value, made)
        for value, made in zip(makes, tangents, strict=True)
        if made is not None and made.requires_grad and way.take(value)
    ]
    if not ends:
        return

    def back(cotangents: Sequence[Tensor]) -> Sequence[Tensor | None]:
        return torch.autograd.grad(
            [made for _, made in ends], [x for _, x in wanted], cotangents,
            retain_graph=True, allow_unused=True,
        )  # fmt: skip

    probe = back([torch.zeros_like(made) for _, made in ends])
    puts = [
        None if read is None or cotangent is None else way.put(read)
        for (read, _), cotangent in zip(wanted, probe, strict=True)
    ]

    def run(buffers: Buffers) -> None:
        made = back([buffers[value].to(end.dtype) for value, end in ends])
        for put, cotangent in zip(puts, made, strict=True):
            if put is not None and cotangent is not None:
                put(buffers, cotangent, False)

    way.instructions.append(run)


def _zeros(read: int | None, table: ValueTable, like: Tensor) -> Tensor | None:
    """A zero tangent that takes no memory; None for a value without tangents."""
    if read is None or read not in table.reached:
        return None
    zero = like.new_zeros((), dtype=table.dtypes[read])
    return zero.expand(table.shapes[read]).detach().requires_grad_()

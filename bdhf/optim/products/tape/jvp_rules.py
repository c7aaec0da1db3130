"""The derivative of one operator along tangents of its arguments: a table of rules.

An operator without a rule goes through torch's forward mode, which runs it again; the rules are for
the operators of common layers, whose derivative needs no second run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.products.tape.calls import STRUCTURAL, VIEWS, Hollow, OperatorCall
from bdhf.optim.products.tape.dual_numbers import ONTO_CONSTANTS, by_dual_numbers
from bdhf.optim.products.tape.own_rules import bag_rule, distance_rule

aten = torch.ops.aten

Tangents = Sequence[Tensor | None]


JVPRule = Callable[
    ..., Any
]  # (call, *tangents of its tensor arguments) -> tangent(s) of the result


def tangent_of(call: OperatorCall, tangents: Tangents) -> list[Tensor | None]:
    """The tangents of the result of a call; None is zero. At least one of `tangents` is not None.

    Raises NotImplementedError for an operator that has no derivative in forward mode.
    """
    rule = JVP_RULES.get(call.func, by_dual_numbers)
    made = rule(call, *tangents)
    return list(made) if isinstance(made, (tuple, list)) else [made]


def in_place_rule(func: Any, constant: bool) -> bool:
    """Whether an operator that overwrites its first argument (`constant`: one) can be replayed."""
    return func in IN_PLACE or (constant and func in ONTO_CONSTANTS)


def _linear(call: OperatorCall, dx: Tensor) -> Any:
    """An operator that is linear in its first and only tensor."""
    return call.func(dx, *call.args[1:], **call.kwargs)


def _reshaped(call: OperatorCall, dx: Tensor) -> Any:
    """A view; the strides of the tangent may differ from those of the value, as for a bias."""
    return dx.reshape(call.args[1])


def _joined(call: OperatorCall, *tangents: Tensor | None) -> Tensor:
    """`cat` and `stack`: zeros where a part has no tangent."""
    like = next(tangent for tangent in tangents if tangent is not None)
    parts = [
        like.new_zeros(part.shape) if tangent is None else tangent
        for part, tangent in zip(call.args[0], tangents, strict=True)
    ]
    joined: Tensor = call.func(parts, *call.args[1:], **call.kwargs)
    return joined


def _sum_rule(sign: int) -> JVPRule:
    """`add` and `sub` of two tensors, or of a tensor and a number."""

    def rule(call: OperatorCall, *tangents: Tensor | None) -> Tensor:
        scales = iter(tangents)
        da, db = (next(scales) if isinstance(x, (Tensor, Hollow)) else None for x in call.args[:2])
        alpha = sign * call.kwargs.get("alpha", 1)
        if da is not None and db is not None:
            return torch.add(da, db, alpha=alpha)
        if da is not None:
            return _shaped(da, call.result)
        assert db is not None  # a call is replayed only with a tangent
        return _shaped(db if alpha == 1 else alpha * db, call.result)

    return rule


def _shaped(tangent: Tensor, result: Tensor) -> Tensor:
    """A tangent that was broadcast, or promoted."""
    return tangent.to(result.dtype).expand(result.shape)


def _product_rule(call: OperatorCall, *tangents: Tensor | None) -> Tensor:
    """`mul` of two tensors, or of a tensor and a number."""
    a, b = call.args
    remaining = iter(tangents)
    da, db = (next(remaining) if isinstance(x, Tensor) else None for x in (a, b))
    if da is not None and db is not None:
        return torch.addcmul(da * b, a, db)
    return _shaped(da * b if da is not None else a * db, call.result)


def _quotient_rule(call: OperatorCall, *tangents: Tensor | None) -> Any:
    """`div` by a number or a constant."""
    if len(tangents) == 2 and tangents[1] is not None:
        return by_dual_numbers(call, *tangents)
    return _shaped(tangents[0] / call.args[1], call.result)


def _matrix_rule(multiply: JVPRule, accumulate: JVPRule) -> JVPRule:
    """`mm` and `bmm`."""

    def rule(call: OperatorCall, da: Tensor | None, db: Tensor | None) -> Any:
        a, b = call.args
        if db is None:
            return multiply(da, b)
        made = multiply(a, db)
        return made if da is None else accumulate(made, da, b)

    return rule


def _affine_rule(
    call: OperatorCall, dc: Tensor | None, da: Tensor | None, db: Tensor | None
) -> Any:
    """`addmm`: c + a b."""
    if call.kwargs:  # scaled
        return by_dual_numbers(call, dc, da, db)
    _, a, b = call.args
    made = None
    if db is not None:
        made = torch.mm(a, db) if dc is None else torch.addmm(dc, a, db)
    if da is None:
        return _shaped(dc, call.result) if made is None and dc is not None else made
    if made is not None:
        return made.addmm_(da, b)
    return torch.mm(da, b) if dc is None else torch.addmm(dc, da, b)


def _convolution_rule(call: OperatorCall, dx: Tensor | None, dw: Tensor | None, *rest: Any) -> Any:
    """`convolution`: bilinear in input and weight, and a bias."""
    x, w, _, *how = call.args
    dbias = rest[0] if rest else None
    made = None
    if dw is not None:
        made = aten.convolution(x, dw, dbias, *how)
    elif dbias is not None and dx is None:
        return _shaped(dbias.view(-1, *[1] * (x.dim() - 2)), call.result)
    if dx is None:
        return made
    moved = aten.convolution(dx, w, dbias if made is None else None, *how)
    return moved if made is None else made.add_(moved)


def _embedding_rule(call: OperatorCall, dw: Tensor, *indices: Tensor | None) -> Any:
    """`embedding`: rows of the weight."""
    return aten.embedding(dw, call.args[1])


def _softmax_rule(call: OperatorCall, dx: Tensor) -> Any:
    """`softmax`, whose Jacobian is symmetric."""
    return aten._softmax_backward_data(dx, call.result, call.args[1], dx.dtype)


#: Operators without tangents: they read a shape at most.
NO_TANGENT = {
    aten.detach.default, aten.new_zeros.default, aten.new_ones.default, aten.new_full.default,
    aten.new_empty.default, aten.zeros_like.default, aten.ones_like.default,
    aten.full_like.default, aten.empty_like.default,
}  # fmt: skip

#: Operator -> its rule.
JVP_RULES: Mapping[Any, JVPRule] = {
    **dict.fromkeys(STRUCTURAL, _linear),
    **dict.fromkeys(VIEWS, _reshaped),
    aten.cat.default: _joined,
    aten.stack.default: _joined,
    aten.add.Tensor: _sum_rule(1),
    aten.sub.Tensor: _sum_rule(-1),
    aten.mul.Tensor: _product_rule,
    aten.div.Tensor: _quotient_rule,
    aten.mm.default: _matrix_rule(torch.mm, Tensor.addmm_),
    aten.bmm.default: _matrix_rule(torch.bmm, Tensor.baddbmm_),
    aten.addmm.default: _affine_rule,
    aten.convolution.default: _convolution_rule,
    aten.embedding.default: _embedding_rule,
    aten._embedding_bag.default: bag_rule,
    aten._cdist_forward.default: distance_rule,
    aten._softmax.default: _softmax_rule,
    aten._safe_softmax.default: _softmax_rule,
    aten.tanh.default: lambda call, dx: aten.tanh_backward(dx, call.result),
    aten.sigmoid.default: lambda call, dx: aten.sigmoid_backward(dx, call.result),
    aten.relu.default: lambda call, dx: aten.threshold_backward(dx, call.result, 0),
}

#: Operators with results that at every entry depend on the arguments at that entry alone.
ELEMENTWISE = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.neg.default,
    aten.mul.Scalar, aten.div.Scalar, aten.tanh.default, aten.sigmoid.default, aten.relu.default,
    aten.tanh_.default, aten.sigmoid_.default, aten.relu_.default, aten.add_.Tensor,
    aten.gelu.default, aten.silu.default, aten.elu.default, aten.softplus.default,
    aten.leaky_relu.default, aten.hardtanh.default, aten.exp.default,
}  # fmt: skip

#: Operators that overwrite their argument, and whose rule needs the new value only.
IN_PLACE: Mapping[Any, JVPRule] = {
    aten.relu_.default: JVP_RULES[aten.relu.default],
    aten.tanh_.default: JVP_RULES[aten.tanh.default],
    aten.sigmoid_.default: JVP_RULES[aten.sigmoid.default],
    aten.add_.Tensor: JVP_RULES[aten.add.Tensor],
}
JVP_RULES = {**JVP_RULES, **IN_PLACE}

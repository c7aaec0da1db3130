"""The derivatives of operators without forward mode in torch: bags of embeddings, distances."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bdhf.optim.products.tape.calls import OperatorCall

aten = torch.ops.aten

#: Defaults of the arguments of `_embedding_bag`, after its weight.
_BAG_DEFAULTS = (None, None, None, False, 0, False, None, False, -1)
_BAG_MAXIMUM = 2  # the mode


def bag_rule(call: OperatorCall, dw: Tensor | None, *others: Tensor | None) -> list[Tensor | None]:
    """`_embedding_bag`: linear in the weight, and in the weights of the samples; a maximum selects.

    Only the first of its four results has a tangent.
    """
    arguments: list[Any] = [*call.args, *_BAG_DEFAULTS[len(call.args) :]]
    (weight, indices, offsets), how = arguments[:3], arguments[3:]
    mode, scales = how[1], how[3]

    def bag(w: Tensor, scales: Tensor | None) -> Tensor:
        how[3] = scales
        made: Tensor = aten._embedding_bag_forward_only(w.contiguous(), indices, offsets, *how)[0]
        return made

    dscales = others[-1] if scales is not None else None
    tangent = None
    if dw is not None:
        tangent = dw.gather(0, call.result[3]) if mode == _BAG_MAXIMUM else bag(dw, scales)
    if dscales is not None:
        moved = bag(weight, dscales.contiguous())
        tangent = moved if tangent is None else tangent + moved
    return [tangent, None, None, None]


def distance_rule(call: OperatorCall, dx: Tensor | None, dy: Tensor | None) -> Tensor:
    """`cdist`: ∂‖x_i - y_j‖_p, with 0 at distance 0, as torch's reverse mode has it."""
    x, y, p, *_ = call.args
    apart = x.unsqueeze(-2) - y.unsqueeze(-3)
    moved = torch.zeros_like(apart)
    if dx is not None:
        moved = moved + dx.unsqueeze(-2)
    if dy is not None:
        moved = moved - dy.unsqueeze(-3)
    distance = call.result.unsqueeze(-1)
    if p == 0:
        return torch.zeros_like(call.result)
    if p == float("inf"):
        slope = apart.sign() * (apart.abs() == distance)
    else:
        slope = apart.sign() * (apart.abs() / distance) ** (p - 1)
    slope = slope.masked_fill((distance == 0) | (apart == 0), 0.0)
    tangent: Tensor = (slope * moved).sum(-1)
    return tangent

"""Functions of torch that hide affine functions: attention, and recurrent layers.

Each is computed in another way with the same result, where every affine function is a call of
`linear`, and dimension 0 of its arguments counts the samples. A composite returns None for a call
that it does not cover. `COMPOSITES` is the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Linear = Callable[..., Tensor]
Composite = Callable[..., Any]
RecurrentCell = Callable[[Tensor, Tensor, Any], Any]  # from inputs, from h, state -> state


def attention(
    linear: Linear, query: Tensor, key: Tensor, value: Tensor, size: int, heads: int,
    weight: Tensor | None, bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
    zero: bool, dropout: float, out_weight: Tensor, out_bias: Tensor | None,
    *, use_separate_proj_weight: bool = False, **options: Any,
) -> Any:  # fmt: skip
    """`F.multi_head_attention_forward`: torch's own, between projections outside of it."""
    if query.dim() != 3:
        return None
    if use_separate_proj_weight:
        weights = [options.pop(f"{name}_proj_weight") for name in "qkv"]
    elif weight is not None:
        weights = list(weight.chunk(3))
    else:
        return None
    biases = [None] * 3 if bias is None else list(bias.chunk(3))
    first = [tensor.transpose(0, 1) for tensor in (query, key, value)]
    if query is key and key is value and weight is not None:
        projected = list(linear(first[0], weight, bias).chunk(3, -1))
    else:
        projected = [linear(*three) for three in zip(first, weights, biases, strict=True)]
    unit = torch.eye(size, dtype=query.dtype, device=query.device)
    same = {f"{name}_proj_weight": unit for name in "qkv"}
    q, k, v = (tensor.transpose(0, 1) for tensor in projected)
    mixed, shares = F.multi_head_attention_forward(
        q, k, v, size, heads,
        None, None, bias_k, bias_v, zero, dropout, unit, None,
        use_separate_proj_weight=True, **{**options, **same},
    )  # fmt: skip
    return linear(mixed.transpose(0, 1), out_weight, out_bias).transpose(0, 1), shares


def recurrent(cell: RecurrentCell, states: int) -> Composite:
    """Layers of a recurrent cell over all steps, as `torch.lstm`, `torch.gru`, `torch.rnn_tanh`."""

    def composite(
        linear: Linear, inputs: Tensor, initial: Any, weights: Any, has_biases: Any = None,
        layers: Any = None, dropout: Any = 0.0, train: Any = False, bidirectional: Any = False,
        batch_first: Any = False,
    ) -> Any:  # fmt: skip
        if inputs.dim() != 3 or not isinstance(has_biases, bool) or (dropout and train):
            return None  # packed sequences, or masks that another order draws otherwise
        every = [initial] if isinstance(initial, Tensor) else list(initial)
        x = inputs if batch_first else inputs.transpose(0, 1)
        directions = 1 + bool(bidirectional)
        per_run = len(weights) // (layers * directions)
        last: list[tuple[Tensor, ...]] = []
        for layer in range(layers):
            outputs = []
            for direction in range(directions):
                run = layer * directions + direction
                own = weights[run * per_run : (run + 1) * per_run]
                start = tuple(state[run] for state in every)
                ys, end = _run(linear, cell, x.flip(1) if direction else x, start, own, has_biases)
                outputs.append(ys.flip(1) if direction else ys)
                last.append(end)
            x = torch.cat(outputs, -1)
        ends = [torch.stack([end[i] for end in last]) for i in range(states)]
        return x if batch_first else x.transpose(0, 1), *ends

    return composite


def _run(
    linear: Linear, cell: RecurrentCell, x: Tensor, state: tuple[Tensor, ...],
    weights: Sequence[Tensor], has_biases: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """One layer in one direction, (N, T, inputs) -> (N, T, hidden), and the last state."""
    b_ih, b_hh = weights[2:4] if has_biases else (None, None)
    projection = weights[-1] if len(weights) % 2 else None  # w_hr of an LSTM
    outputs = []
    for step in linear(x, weights[0], b_ih).unbind(1):
        state = cell(step, linear(state[0], weights[1], b_hh), state)
        if projection is not None:
            state = (linear(state[0], projection), *state[1:])
        outputs.append(state[0])
    return torch.stack(outputs, 1), state


def _lstm(inputs: Tensor, hidden: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    i, f, g, o = (inputs + hidden).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(inputs: Tensor, hidden: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (r, z, n), (r_h, z_h, n_h) = inputs.chunk(3, -1), hidden.chunk(3, -1)
    keep = (z + z_h).sigmoid()
    return ((1 - keep) * (n + (r + r_h).sigmoid() * n_h).tanh() + keep * state[0],)


def _simple(activation: Callable[[Tensor], Tensor]) -> RecurrentCell:
    return lambda inputs, hidden, state: (activation(inputs + hidden),)


#: function of torch -> its composite, which gets `linear` first.
COMPOSITES: Mapping[Any, Composite] = {
    F.multi_head_attention_forward: attention,
    torch.lstm: recurrent(_lstm, states=2),
    torch.gru: recurrent(_gru, states=1),
    torch.rnn_tanh: recurrent(_simple(torch.tanh), states=1),
    torch.rnn_relu: recurrent(_simple(torch.relu), states=1),
}

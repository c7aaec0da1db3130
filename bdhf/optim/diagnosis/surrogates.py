"""Backward passes that are not the derivative of their forward pass, and the module they are in.

Straight-through estimators, detach(), no_grad() and gradient hooks are examples by design. Each
module runs alone, in float64. For random directions d of its inputs and parameters, and w of its
outputs, compare

    wᵀ(f(x + hd) - f(x - hd)) / 2h    against    (wᵀJ)d  by autograd.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from bdhf.optim.diagnosis.faulty_module import ModuleCall, calls_of, copied, differentiable
from bdhf.optim.forward.objective import plain_kernels
from bdhf.optim.refusals.refusals import named

#: Relative step of the central difference.
_STEP = 1e-6

#: Relative difference of the two derivatives above which they belong to two functions.
OTHER = 1e-3

#: Relative difference of the slopes on both sides above which a point is a kink.
_KINK = 1e-3

#: Rounding error of a value, relative to its terms.
ROUNDING = 1e-13

#: What to do instead of check=False, by the attribute of a module that changes its gradient.
WAYS_OUT = {"scale_grad_by_freq": "build it with scale_grad_by_freq=False"}


def held_fixed(model: nn.Module) -> Iterator[tuple[Tensor, int]]:
    """Rows of parameters whose gradient torch defines as 0, though the outputs depend on them.

    Those of `padding_idx`: along them a finite difference is not torch's derivative.
    """
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.padding_idx is not None:
            yield module.weight, module.padding_idx


def double(piece: Any) -> Any:
    """A nest of objects with its real tensors in float64."""
    return tree_map(
        lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, piece
    )


def surrogate(model: nn.Module, inputs: Any) -> str:
    """The innermost module whose backward pass is not its derivative, and what to do.

    Empty where there is none, or where the model has no copy in float64.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter._backward_hooks:
            owner = name.rpartition(".")[0]
            where = named(owner, model.get_submodule(owner))
            return f"{where} (its {name.rpartition('.')[2]} has a gradient hook: remove it)"
    try:
        twin = copy.deepcopy(model).double()
        for call in calls_of(twin, double(inputs)):  # a module ends after its children
            if _is_surrogate(call):
                return named(call.path, call.module) + _way_out(call.module)
    except (RuntimeError, TypeError):  # it has no copy in float64
        pass
    return ""


def _way_out(module: nn.Module) -> str:
    listed = [way for attribute, way in WAYS_OUT.items() if getattr(module, attribute, False)]
    return f" ({listed[0]})" if listed else ""


def _is_surrogate(call: ModuleCall) -> bool:
    leaves, spec = tree_flatten(call.inputs)
    sources = [
        x.requires_grad_() if moved else x for x, moved in zip(leaves, call.moves, strict=True)
    ]
    moving_inputs = [x for x, moved in zip(sources, call.moves, strict=True) if moved]
    parameters = [p for p in call.module.parameters() if p.requires_grad]
    if not (moving_inputs or parameters):
        return False
    draws = torch.Generator().manual_seed(0)
    moving = [*moving_inputs, *parameters]
    directions = [_direction(x, draws) for x in moving]
    for parameter, row in held_fixed(call.module):
        if parameter.requires_grad:
            directions[_index(moving, parameter)][row] = 0.0

    def run() -> list[Tensor]:
        with torch.enable_grad(), plain_kernels(call.module):
            arguments, keywords = tree_map(copied, tree_unflatten(sources, spec))
            outputs = tree_leaves(call.module(*arguments, **keywords))
        return [z for z in outputs if isinstance(z, Tensor) and z.is_floating_point()]

    outputs = run()
    weights = [_direction(z, draws) for z in outputs]
    derivative = _derivative(outputs, weights, moving, directions)
    before, behind, rounding = _slopes(run, weights, moving, directions)
    if abs(before - behind) > _KINK * (abs(before) + abs(behind)) + rounding:
        return False
    difference = (before + behind) / 2
    return abs(difference - derivative) > OTHER * (abs(difference) + abs(derivative)) + rounding


def _direction(x: Tensor, draws: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=draws, dtype=x.dtype).to(x.device)


def _index(tensors: Sequence[Tensor], tensor: Tensor) -> int:
    return next(i for i, other in enumerate(tensors) if other is tensor)


def _derivative(
    outputs: Sequence[Tensor], weights: Sequence[Tensor],
    moving: Sequence[Tensor], directions: Sequence[Tensor],
) -> float:  # fmt: skip
    """(wᵀJ)d by autograd."""
    pairs = [(z, w) for z, w in zip(outputs, weights, strict=True) if differentiable(z)]
    if not pairs:
        return 0.0
    columns = torch.autograd.grad(
        [z for z, _ in pairs], moving, [w for _, w in pairs],
        allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    return sum(float((g * d).sum().detach()) for g, d in zip(columns, directions, strict=True))


@torch.no_grad()
def _slopes(
    run: Any, weights: Sequence[Tensor], moving: Sequence[Tensor], directions: Sequence[Tensor]
) -> tuple[float, float, float]:
    """The slopes of wᵀf along d before and behind the point, and their rounding error."""
    origin = [x.clone() for x in moving]
    size = max(1.0, float(torch.stack([x.norm() for x in origin]).norm()))
    step = _STEP * size / max(1e-300, float(torch.stack([d.norm() for d in directions]).norm()))
    values, rounding = [], 0.0
    for sign in (-1.0, 0.0, 1.0):
        for x, start, d in zip(moving, origin, directions, strict=True):
            x.copy_(start).add_(d, alpha=sign * step)
        terms = [z * w for z, w in zip(run(), weights, strict=True)]
        values.append(sum(float(term.sum()) for term in terms))
        rounding = ROUNDING / step * sum(float(term.abs().sum()) for term in terms)
    for x, start in zip(moving, origin, strict=True):
        x.copy_(start)
    before, behind = ((b - a) / step for a, b in pairwise(values))
    return before, behind, rounding

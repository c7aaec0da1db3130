"""Jᵀw as one vector: a reverse sweep that writes every gradient where it belongs.

A list of gradients and the vector of them all would be twice the parameters at once; what lies
beside a vector of CG counts in the peak of an update.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bdhf.optim.vectors.layout import split_like


def vjp(end: Tensor, parameters: Sequence[Tensor], w: Tensor, out: Tensor | None = None) -> Tensor:
    """∂⟨end, w⟩/∂θ of some parameters, one behind the other; zero where `end` does not depend.

    It is written into `out`, where that is given.
    """
    size = sum(parameter.numel() for parameter in parameters)
    flat = parameters[0].detach().new_empty(size) if out is None else out
    parts = split_like(flat, parameters)
    hooks = [
        parameter.register_hook(_writing(part))
        for parameter, part in zip(parameters, parts, strict=True)
    ]
    try:
        gradients = torch.autograd.grad(end, parameters, w, retain_graph=True, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    for part, gradient in zip(parts, gradients, strict=True):
        if gradient is None:
            part.zero_()
    return flat


def _writing(part: Tensor) -> Callable[[Tensor | None], Tensor | None]:
    """A hook that takes a gradient as soon as it is whole, and lets its memory go."""

    def write(gradient: Tensor | None) -> Tensor | None:
        if gradient is None:  # a reverse sweep came by, with nothing
            return None
        part.copy_(gradient)
        return gradient.new_zeros(()).expand_as(gradient)

    return write

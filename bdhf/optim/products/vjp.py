"""Jᵀw as one vector: a reverse sweep that writes every gradient into its part of the vector.

A list of gradients and their vector would take the memory of the parameters twice; the peak memory
of an update is reached here, while the vectors of CG are held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bdhf.optim.vectors.layout import split_like


def vjp(end: Tensor, parameters: Sequence[Tensor], w: Tensor, out: Tensor | None = None) -> Tensor:
    """∂⟨end, w⟩/∂θ of some parameters, concatenated; zero where `end` does not depend.

    Written into `out`, if passed.
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
    """A hook that copies a gradient as soon as it is complete, and frees its memory."""

    def write(gradient: Tensor | None) -> Tensor | None:
        if gradient is None:  # the sweep reached the parameter without a gradient
            return None
        part.copy_(gradient)
        return gradient.new_zeros(()).expand_as(gradient)

    return write

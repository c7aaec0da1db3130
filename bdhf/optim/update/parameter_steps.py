"""Steps of the parameters from the start of an update, undone when anything fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bdhf.optim.vectors.layout import split_like


@contextmanager
def moving(parameters: Sequence[nn.Parameter]) -> Iterator[Callable[[Tensor], None]]:
    """Yield `move(step)`: θ = θ₀ + step, (P,) in the order of the parameters, θ₀ at entry.

    When the body raises, the parameters are θ₀ again, bit for bit.
    """
    origin = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def move(step: Tensor) -> None:
        parts = split_like(step, parameters)
        for parameter, start, part in zip(parameters, origin, parts, strict=True):
            parameter.copy_(start).add_(part)

    try:
        yield move
    except BaseException:
        with torch.no_grad():
            for parameter, start in zip(parameters, origin, strict=True):
                parameter.copy_(start)
        raise

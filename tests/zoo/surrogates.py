"""Backward passes that a user wrote: functions of torch.autograd, detached parts, surrogates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tests.zoo.entry import Entry, Words, regression

SURROGATE: dict[str, Words] = {"step": ("'.*'|root", "check=False")}


class Cube(torch.autograd.Function):
    """Its backward pass can be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * u


class OnceOnly(Cube):
    """Its backward pass cannot."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * u


class Reversed(torch.autograd.Function):
    """The identity with a reversed gradient: domain adaptation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Tensor:
        return -u


class Applied(nn.Module):
    """A function, as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Target(nn.Module):
    """Two branches, of which one gets no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.online, self.target, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.online(x)) * self.online(x).detach())


def _straight_through(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def _with(function: Callable[[Tensor], Tensor], refused: dict[str, Words] | None = None) -> Entry:
    return Entry(
        lambda: regression(
            nn.Sequential(nn.Linear(3, 3), Applied(function), nn.Linear(3, 2)), torch.randn(4, 3)
        ),
        refused or {},
    )


ENTRIES: dict[str, Entry] = {
    "own function": _with(Cube.apply),
    "own function, once differentiable": _with(
        OnceOnly.apply, {"all": (r"'1' \(Applied\)", "once_differentiable|GGN")}
    ),
    "straight-through": _with(_straight_through, SURROGATE),
    "reversed gradient": _with(Reversed.apply, SURROGATE),
    "partly detached": Entry(lambda: regression(Target(), torch.randn(4, 3)), SURROGATE),
}

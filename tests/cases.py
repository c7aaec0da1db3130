"""The table of models × loss × data on which every part of the method is tested.

Small, float64, seeded: a dense oracle fits. A new line here tests every curvature, partition and
solver on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Case:
    """A model, its loss and a batch, built afresh for each test."""

    model: nn.Module
    loss_fn: Callable[[Any, Any], Tensor]
    batch: tuple[Tensor, Tensor]


class TiedAutoencoder(nn.Module):
    """The decoder is the encoder transposed: one tensor, used twice, with two names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 3)
        self.decoder = nn.Linear(3, 5)
        self.mirror = self.encoder  # a second name of the same tensors

    def forward(self, x: Tensor) -> Tensor:
        code = torch.tanh(self.mirror(x))
        return self.decoder(code) + F.linear(code, self.encoder.weight.t())


class Partly(nn.Module):
    """A model with a layer that its outputs never reach."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(4, 3)
        self.unused = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def _mlp() -> Case:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    return Case(model, F.mse_loss, (torch.randn(7, 4), torch.randn(7, 3)))


def _classifier() -> Case:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    return Case(model, F.cross_entropy, (torch.randn(9, 4), torch.randint(0, 3, (9,))))


def _conv() -> Case:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(2, 2, 3, groups=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(2, 3),
    )
    return Case(model, F.cross_entropy, (torch.randn(6, 1, 6, 6), torch.randint(0, 3, (6,))))


def _tied() -> Case:
    x = torch.randn(6, 5)
    return Case(TiedAutoencoder(), F.mse_loss, (x, x))


def _frozen() -> Case:
    case = _mlp()
    for name in ("0.bias", "2.weight"):
        case.model.get_parameter(name).requires_grad_(False)
    return case


def _unused() -> Case:
    return Case(Partly(), F.mse_loss, (torch.randn(5, 4), torch.randn(5, 3)))


def _reused() -> Case:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(4, 2))
    return Case(model, F.mse_loss, (torch.randn(6, 4), torch.randn(6, 2)))


def _sum_bce() -> Case:
    model = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2))
    loss = nn.BCEWithLogitsLoss(reduction="sum")
    return Case(model, loss, (torch.randn(5, 3), torch.rand(5, 2)))


CASES: dict[str, Callable[[], Case]] = {
    "mlp": _mlp,
    "classifier": _classifier,
    "conv": _conv,
    "tied": _tied,
    "frozen": _frozen,
    "unused": _unused,
    "reused": _reused,
    "sum_bce": _sum_bce,
}


def build(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> Case:
    """Build a case from a seed, leaving torch's global generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        case = CASES[name]()
    x, y = case.batch
    y = y.to(dtype) if y.is_floating_point() else y
    return Case(case.model.to(dtype), case.loss_fn, (x.to(dtype), y))

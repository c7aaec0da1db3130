"""The table of models × loss × data on which every part of the method is tested.

Small, float64, seeded: a dense oracle fits. A new line here tests every curvature, partition and
solver on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bdhf.nn import PeepholeLSTM


@dataclass(frozen=True)
class Case:
    """A model, its loss and a batch, built again for each test."""

    model: nn.Module
    loss_fn: Callable[[Any, Any], Tensor]
    batch: tuple[Tensor, Tensor]
    recognised: bool = True  # whether bdhf knows the terms of the loss
    draws: bool = True  # whether, if it is, targets can be drawn from it


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


class Last(nn.Module):
    """A recurrent layer, and a linear layer on its last output."""

    def __init__(self, recurrent: nn.Module, hidden: int, outputs: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


class Attention(nn.Module):
    """Self-attention by a module of torch, and a linear layer on its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


class ScaledDotProduct(nn.Module):
    """Self-attention by the function, which prefers kernels without a second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 12)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).view(len(x), -1, 2, 6).transpose(1, 2).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(mixed.mean(1))


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


def _embedding() -> Case:
    model = nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Linear(6, 4), nn.Tanh())
    model.append(nn.Linear(4, 3))
    return Case(model, F.cross_entropy, (torch.randint(0, 6, (7, 2)), torch.randint(0, 3, (7,))))


def _norms() -> Case:
    model = nn.Sequential(
        nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.GroupNorm(2, 4), nn.Linear(4, 2)
    )
    return Case(model, F.mse_loss, (torch.randn(6, 3), torch.randn(6, 2)))


def _batch_norm() -> Case:
    norm = nn.BatchNorm1d(4)
    norm.running_mean, norm.running_var = torch.randn(4), torch.rand(4) + 0.5
    model = nn.Sequential(nn.Linear(3, 4), norm, nn.Tanh(), nn.Linear(4, 2))
    return Case(model.eval(), F.mse_loss, (torch.randn(5, 3), torch.randn(5, 2)))


def _recurrent(build: Callable[[], nn.Module]) -> Case:
    model = Last(build(), 2, 2)
    return Case(model, F.cross_entropy, (torch.randn(4, 3, 2), torch.randint(0, 2, (4,))))


def _attention(build: Callable[[], nn.Module]) -> Case:
    return Case(build(), F.mse_loss, (torch.randn(4, 3, 4), torch.randn(4, 2)))


def _peephole() -> nn.Module:
    lstm = PeepholeLSTM(2, 2, num_layers=2)
    for name, parameter in lstm.named_parameters():
        if "peephole" in name:
            nn.init.normal_(parameter)
    return lstm


def _tokens() -> Case:
    """Class indices for every position, some of which do not count, smoothed and weighted."""
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.Conv1d(3, 4, 1))
    y = torch.randint(0, 4, (5, 3))
    y[0], y[2, 1] = -100, -100
    loss = nn.CrossEntropyLoss(label_smoothing=0.1, weight=torch.tensor([1.0, 2.0, 0.5, 1.0]))
    return Case(model, loss, (torch.randn(5, 2, 4), y), draws=False)


def _ignoring() -> Case:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    loss = partial(F.cross_entropy, ignore_index=1)
    return Case(model, loss, (torch.randn(8, 3), torch.randint(0, 3, (8,))))


def _own_loss() -> Case:
    """A convex loss that torch does not have: log cosh."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

    def log_cosh(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).cosh().log().mean()

    return Case(model, log_cosh, (torch.randn(5, 3), torch.randn(5, 2)), recognised=False)


def _transposed() -> Case:
    model = nn.Sequential(
        nn.ConvTranspose1d(2, 4, 2, stride=2, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(24, 2)
    )
    return Case(model, F.mse_loss, (torch.randn(4, 2, 3), torch.randn(4, 2)))


CASES: dict[str, Callable[[], Case]] = {
    "mlp": _mlp,
    "classifier": _classifier,
    "conv": _conv,
    "tied": _tied,
    "frozen": _frozen,
    "unused": _unused,
    "reused": _reused,
    "sum_bce": _sum_bce,
    "embedding": _embedding,
    "norms": _norms,
    "batch_norm": _batch_norm,
    "lstm": lambda: _recurrent(lambda: nn.LSTM(2, 2, num_layers=2, batch_first=True)),
    "gru": lambda: _recurrent(lambda: nn.GRU(2, 2, batch_first=True)),
    "peephole": lambda: _recurrent(_peephole),
    "attention": lambda: _attention(Attention),
    "sdpa": lambda: _attention(ScaledDotProduct),
    "tokens": _tokens,
    "ignoring": _ignoring,
    "own_loss": _own_loss,
    "transposed": _transposed,
}


def build(
    name: str, seed: int = 0, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> Case:
    """Build a case from a seed, leaving torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        case = CASES[name]()
    x, y = (t.to(device, dtype if t.is_floating_point() else None) for t in case.batch)
    loss = case.loss_fn
    loss = loss.to(device, dtype) if isinstance(loss, nn.Module) else loss
    return replace(case, model=case.model.to(device, dtype), loss_fn=loss, batch=(x, y))

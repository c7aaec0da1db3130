"""Refusals, with what to do, of what has no products or would be trained wrongly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.cases import Case
from tests.zoo.entry import Entry, Words


class Complex(nn.Module):
    """A complex parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.weight = nn.Linear(3, 2), nn.Parameter(torch.randn(2, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        return (self.front(x) * self.weight).real


class Empty(nn.Linear):
    """A parameter without entries."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.extra = nn.Parameter(torch.zeros(0, 2))


class Noisy(nn.Module):
    """A forward pass that draws, by the function."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.layer(x), 0.5))


class Two(nn.Linear):
    """Two outputs."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), x


class NoGraph(nn.Linear):
    """Outputs without a graph."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def _between(layer: nn.Module, width: int = 3) -> Case:
    model = nn.Sequential(nn.Linear(3, 3), layer, nn.Linear(width, 2))
    return Case(model, F.mse_loss, (torch.randn(4, 3), torch.randn(4, 2)))


def _images(layer: nn.Module) -> Case:
    volume = "3d" in type(layer).__name__
    front = nn.Conv3d(2, 2, 1) if volume else nn.Conv2d(2, 2, 1)
    x = torch.randn(3, 2, *[4] * (3 if volume else 2))
    model = nn.Sequential(front, layer)
    return Case(model, F.mse_loss, (x, torch.zeros_like(model(x))))


def _whole(model: nn.Module) -> Case:
    return Case(model, F.mse_loss, (torch.randn(4, 3), torch.randn(4, 2)))


def _lazy() -> Case:
    return _whole(nn.Sequential(nn.Linear(3, 3), nn.LazyLinear(2)))


def _meta() -> Case:
    return _whole(nn.Sequential(nn.Linear(3, 2, device="meta")))


def _scripted() -> Case:
    return _whole(torch.jit.script(nn.Sequential(nn.Linear(3, 2))))


def _spectral() -> Case:
    return _between(parametrizations.spectral_norm(nn.Linear(3, 3)))


def _refused(build: Callable[[], Case], *words: str) -> Entry:
    return Entry(build, {"all": words}, partitions=("per_layer",))


NOISE: Words = ("Noisy", "eval")
ENTRIES: dict[str, Entry] = {
    "dropout in training": _refused(lambda: _between(nn.Dropout(0.5)), r"'1' \(Dropout\)", "eval"),
    "rrelu in training": _refused(lambda: _between(nn.RReLU()), r"'1' \(RReLU\)", "eval"),
    "batch norm in training": _refused(
        lambda: _between(nn.BatchNorm1d(3)), r"'1' \(BatchNorm1d\)", "eval"
    ),
    "batch norm without statistics": _refused(
        lambda: _between(nn.BatchNorm1d(3, track_running_stats=False).eval()),
        r"'1' \(BatchNorm1d\)", "track_running_stats",
    ),
    "attention with dropout in training": _refused(
        lambda: _between(nn.TransformerEncoderLayer(3, 1, 2)), "dropout|MultiheadAttention", "eval"
    ),
    "dropout by the function": Entry(
        lambda: _whole(Noisy()), {"step": NOISE}, dict.fromkeys(("ggn", "hessian", "fisher"), NOISE)
    ),
    "spectral norm in training": _refused(_spectral, "'1", "eval"),
    "instance norm, statistics in training": _refused(
        lambda: _images(nn.InstanceNorm2d(2, track_running_stats=True)),
        r"'1' \(InstanceNorm2d\)", "track_running_stats=False",
    ),
    "fractional pool": _refused(
        lambda: _images(nn.FractionalMaxPool2d(2, 2)), r"'1' \(FractionalMaxPool2d\)", "MaxPool2d"
    ),
    "fractional pool of volumes": _refused(
        lambda: _images(nn.FractionalMaxPool3d(2, 2)), r"'1' \(FractionalMaxPool3d\)", "MaxPool"
    ),
    "copied to devices": _refused(
        lambda: _whole(nn.DataParallel(nn.Linear(3, 2))), "DataParallel", "model.module"
    ),
    "complex parameter": _refused(lambda: _whole(Complex()), "'weight'", "view_as_complex"),
    "parameter without entries": _refused(lambda: _whole(Empty()), "'extra'", "requires_grad_"),
    "lazy parameter": _refused(_lazy, "'1.weight'", "forward"),
    "meta parameter": _refused(_meta, "'0.weight'", "meta"),
    "scripted model": _refused(_scripted, "torch.jit", "nn.Module"),
    "two outputs": _refused(lambda: _whole(Two(3, 2)), "Two", "tuple", "Tensor"),
    "outputs without a graph": _refused(lambda: _whole(NoGraph(3, 2)), "NoGraph", "no_grad"),
    "losses not reduced": _refused(
        lambda: Case(nn.Linear(3, 2), nn.MSELoss(reduction="none"), _whole(nn.Linear(3, 2)).batch),
        r"reduction='mean'|bdhf\.optim\.Likelihood",
    ),
    "nothing to train": _refused(
        lambda: _whole(nn.Linear(3, 2).requires_grad_(False)), "Linear", "requires_grad"
    ),
}  # fmt: skip

"""How parameters come to be weights: parametrised, shared, frozen, unused, scalar, nested."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from tests.cases import Case
from tests.zoo.entry import Entry, Words, regression

WRONG: Words = ("module '", "GGN")


class Scalar(nn.Module):
    """One number scales, another shifts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.scale, self.shift = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * torch.tanh(self.layer(x)) + self.shift


class Unused(nn.Module):
    """A layer that the outputs never reach, and a parameter that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)
        self.idle = nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.used(x)


class Nested(nn.Module):
    """Lists and dictionaries of modules and parameters, twice deep."""

    def __init__(self) -> None:
        super().__init__()
        rows = nn.ModuleList([nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Tanh())])
        self.parts = nn.ModuleDict(
            {"rows": nn.ModuleList([rows, nn.ModuleList([nn.Linear(2, 2)])])}
        )
        self.shifts = nn.ParameterDict({"a": torch.randn(2), "b": torch.randn(2)})
        self.scales = nn.ParameterList([torch.randn(2), torch.randn(2)])

    def forward(self, x: Tensor) -> Tensor:
        (first, second), (last,) = self.parts["rows"]
        h = second(torch.tanh(first(x)) + self.shifts["a"]) * self.scales[0]
        return last(h - self.shifts["b"]) * self.scales[1]


class Highway(nn.Module):
    """A gate lets the input through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.change, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return self.head(gate * torch.tanh(self.change(x)) + (1 - gate) * x)


class Hypernetwork(nn.Module):
    """A network makes the weights of another, one set for every sample."""

    def __init__(self) -> None:
        super().__init__()
        self.maker, self.bias = nn.Linear(2, 6), nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.tanh(self.maker(x[:, :2])).view(-1, 2, 3)
        return torch.bmm(weights, x[..., None])[..., 0] + self.bias


class LowRank(nn.Module):
    """A frozen weight with a learned correction of rank one."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.head = nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 2)
        self.down, self.up = nn.Linear(3, 1, bias=False), nn.Linear(1, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.base(x) + self.up(self.down(x))))


def _mlp(*layers: nn.Module) -> Case:
    return regression(nn.Sequential(*layers), torch.randn(4, 3))


def _normed(norm: Callable[[nn.Module], nn.Module]) -> Callable[[], Case]:
    return lambda: _mlp(nn.Linear(3, 3), nn.Tanh(), norm(nn.Linear(3, 2)))


def _orthogonal() -> Case:
    return _mlp(nn.Linear(3, 3), nn.Tanh(), parametrizations.orthogonal(nn.Linear(3, 2)))


def _spectral() -> Case:
    layer = parametrizations.spectral_norm(nn.Linear(3, 3))
    return _mlp(nn.Linear(3, 3), nn.Tanh(), layer.eval())


def _shared() -> Case:
    layer = nn.Linear(3, 3)
    return _mlp(layer, nn.Tanh(), layer, nn.Tanh(), nn.Linear(3, 2))


def _frozen() -> Case:
    case = _mlp(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))
    for name in ("0.weight", "2.bias", "4.weight"):
        case.model.get_parameter(name).requires_grad_(False)
    return case


def _biases() -> Case:
    case = _mlp(nn.Linear(3, 3), nn.LayerNorm(3), nn.Tanh(), nn.Linear(3, 2))
    for name, parameter in case.model.named_parameters():
        parameter.requires_grad_("bias" in name)
    return case


ENTRIES: dict[str, Entry] = {
    "weight norm": Entry(_normed(parametrizations.weight_norm), doubted={"hessian": WRONG}),
    "weight norm by hooks": Entry(_normed(weight_norm), doubted={"hessian": WRONG}),
    "spectral norm in eval": Entry(_spectral),
    "orthogonal": Entry(_orthogonal, partitions=("full", "per_layer", "random")),
    "shared layer": Entry(_shared),
    "partly frozen": Entry(_frozen),
    "biases only": Entry(_biases),
    "scalars": Entry(lambda: regression(Scalar(), torch.randn(4, 3))),
    "unused layer": Entry(lambda: regression(Unused(), torch.randn(4, 3))),
    "lists and dictionaries": Entry(lambda: regression(Nested(), torch.randn(4, 2))),
    "highway": Entry(lambda: regression(Highway(), torch.randn(4, 3))),
    "hypernetwork": Entry(lambda: regression(Hypernetwork(), torch.randn(4, 3))),
    "low-rank correction": Entry(lambda: regression(LowRank(), torch.randn(4, 3))),
}

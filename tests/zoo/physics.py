"""Models that differentiate inside their forward pass, iterate, or transform."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.entry import Entry, regression


def _net(inputs: int, outputs: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 4), nn.Tanh(), nn.Linear(4, outputs))


class Slope(nn.Module):
    """The derivative of a network in its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _net(2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.net(x).sum(), x, create_graph=True)[0]


class Laplacian(nn.Module):
    """u and Δu of a network: the residual of Poisson's equation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _net(2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        u = self.net(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        second = [
            torch.autograd.grad(slope[:, d].sum(), x, create_graph=True)[0][:, d] for d in range(2)
        ]
        return torch.stack([u[:, 0], sum(second)], dim=1)


class ByTransforms(nn.Module):
    """The derivative of a network, sample by sample, by torch.func."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _net(2)

    def forward(self, x: Tensor) -> Tensor:
        def scalar(point: Tensor) -> Tensor:
            return self.net(point)[0]

        return torch.func.vmap(torch.func.grad(scalar))(x)


class ForceField(nn.Module):
    """The energy of some atoms, out of their distances, and the forces on them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _net(1)

    def forward(self, positions: Tensor) -> Tensor:
        positions = positions.detach().requires_grad_()
        apart = positions[:, :, None] - positions[:, None]  # (N, atoms, atoms, 3)
        i, j = torch.triu_indices(3, 3, 1)
        distances = apart[:, i, j].square().sum(2, keepdim=True).sqrt()
        energy = self.net(distances).sum((1, 2))
        (slope,) = torch.autograd.grad(energy.sum(), positions, create_graph=True)
        return torch.cat([energy[:, None], -slope.flatten(1)], dim=1)


class Siren(nn.Module):
    """Sines of large frequency (Sitzmann et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sin(3 * self.second(torch.sin(3 * self.first(x)))))


class Equilibrium(nn.Module):
    """A fixed point, unrolled."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.state, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        z, drive = torch.zeros_like(x), self.inputs(x)
        for _ in range(8):
            z = torch.tanh(0.5 * self.state(z) + drive)
        return self.head(z)


class Ode(nn.Module):
    """Four steps of Runge and Kutta's."""

    def __init__(self) -> None:
        super().__init__()
        self.field, self.head = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)), _net(2)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            middle = x + 0.25 * self.field(x)
            x = x + 0.5 * self.field(middle)
        return self.head(x)


class Fourier(nn.Module):
    """Real weights of real and imaginary parts between two transforms."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.head = nn.Conv1d(1, 2, 1), nn.Conv1d(2, 1, 1)
        self.real, self.imaginary = (nn.Parameter(torch.randn(2, 2, 3) / 2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        modes = torch.fft.rfft(self.lift(x))[..., :3]
        weight = torch.complex(self.real, self.imaginary)
        mixed = torch.einsum("nim,iom->nom", modes, weight)
        return self.head(torch.tanh(torch.fft.irfft(mixed, n=x.shape[-1]))).flatten(1)


class Features(nn.Module):
    """Random Fourier features, frozen, in front of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, 3))
        self.net = _net(6)

    def forward(self, x: Tensor) -> Tensor:
        phase = x @ self.frequencies
        return self.net(torch.cat([phase.sin(), phase.cos()], 1))


ENTRIES: dict[str, Entry] = {
    name: Entry(lambda kind=kind, shape=shape: regression(kind(), torch.randn(shape)))
    for name, kind, shape in [
        ("derivative of a network", Slope, (4, 2)),
        ("Laplacian", Laplacian, (4, 2)),
        ("derivative by torch.func", ByTransforms, (4, 2)),
        ("force field", ForceField, (2, 3, 3)),
        ("siren", Siren, (4, 2)),
        ("equilibrium, unrolled", Equilibrium, (4, 3)),
        ("differential equation", Ode, (4, 2)),
        ("Fourier layer", Fourier, (2, 1, 6)),
        ("Fourier features", Features, (4, 2)),
    ]
}

"""Small models of images: the blocks of well-known networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.entry import Entry, classes, regression
from tests.zoo.layers import settled


class Residual(nn.Module):
    """Convolution, norm, convolution, norm, plus a shortcut of one pixel."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm1, self.norm2 = settled(nn.BatchNorm2d(out)), settled(nn.BatchNorm2d(out))
        self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(h)) + self.shortcut(x))


class Normed(nn.Module):
    """A residual block with group norm, as in diffusion models, and a shift for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, 2), nn.GroupNorm(2, 2)
        self.conv1, self.conv2 = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.time = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        shift = self.time(x.mean((2, 3)))[:, :, None, None]
        h = self.conv1(F.silu(self.norm1(x))) + shift
        return x + self.conv2(F.silu(self.norm2(h)))


class Dense(nn.Module):
    """Every layer reads the outputs of all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(1 + k, 1, 3, padding=1) for k in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, torch.relu(layer(x))], 1)
        return x


class SqueezeExcite(nn.Module):
    """Channels, scaled by a network of their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 1, 1), nn.Conv2d(1, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.silu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class UNet(nn.Module):
    """Down, up, and across."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 2, stride=2)
        self.up, self.leave = nn.ConvTranspose2d(2, 2, 2, stride=2), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        across = torch.relu(self.enter(x))
        up = self.up(F.max_pool2d(torch.tanh(self.down(across)), 1))
        return self.leave(torch.cat([across, up], 1))


class Mixer(nn.Module):
    """Mixes tokens, then channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(2), nn.LayerNorm(2)
        self.tokens, self.channels = nn.Linear(4, 4), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + F.gelu(self.tokens(self.norm1(x).transpose(1, 2))).transpose(1, 2)
        return x + F.gelu(self.channels(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Patches, positions, a token of the class, one block of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 4, 2, stride=2)
        self.token, self.positions = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(5, 4))
        self.block = nn.TransformerEncoderLayer(4, 2, 4, activation="gelu", batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), 1, -1), tokens], 1) + self.positions
        return self.head(self.block(tokens)[:, 0])


def _behind(*layers: nn.Module, channels: int) -> nn.Module:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2)]
    return nn.Sequential(*layers, *head)


def _mobile() -> nn.Module:
    """Expand, convolve by channel, squeeze and excite, project (Sandler et al. 2018)."""
    return _behind(
        nn.Conv2d(1, 3, 1, bias=False), settled(nn.BatchNorm2d(3)), nn.Hardswish(),
        nn.Conv2d(3, 3, 3, stride=2, padding=1, groups=3, bias=False), nn.SiLU(),
        SqueezeExcite(3), nn.Conv2d(3, 2, 1), channels=2,
    )  # fmt: skip


def _next() -> nn.Module:
    """A block by channel with a layer norm over channels (Liu et al. 2022)."""
    return _behind(
        nn.Conv2d(1, 3, 2, stride=2), nn.Conv2d(3, 3, 3, padding=1, groups=3),
        Over(nn.LayerNorm(3)), Over(nn.Linear(3, 4)), nn.GELU(), Over(nn.Linear(4, 3)), channels=3,
    )  # fmt: skip


class Over(nn.Module):
    """A layer over the channels of every pixel."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


ENTRIES: dict[str, Entry] = {
    name: Entry(
        lambda build=build: classes(build().eval(), torch.randn(3, 1, 4, 4)), partitions=partitions
    )
    for name, build, partitions in [
        ("residual block", lambda: _behind(nn.Conv2d(1, 2, 3), Residual(2, 3, 2), channels=3),
         ("full", "per_layer", "per_neuron")),
        ("residual block, group norm", lambda: _behind(nn.Conv2d(1, 2, 1), Normed(), channels=2),
         ("full", "per_layer", "random")),
        ("dense block", lambda: _behind(Dense(), channels=4), ("full", "per_layer", "random")),
        ("squeeze and excite", lambda: _behind(nn.Conv2d(1, 2, 2), SqueezeExcite(2), channels=2),
         ("full", "per_layer", "per_neuron")),
        ("mobile block", _mobile, ("full", "per_layer", "random")),
        ("block over channels", _next, ("full", "per_layer", "random")),
        ("vision transformer", VisionTransformer, ("full", "per_layer", "random")),
    ]
} | {
    "u-net": Entry(
        lambda: classes(UNet(), torch.randn(2, 1, 4, 4)), partitions=("full", "per_layer", "random")
    ),
    "mixer": Entry(
        lambda: regression(nn.Sequential(nn.Linear(2, 2), Mixer()), torch.randn(3, 4, 2))
    ),
}  # fmt: skip

"""Every layer of torch.nn between two trainable layers; recurrent ones and attention apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from tests.cases import Case
from tests.zoo.entry import Entry, between, regression

Layers = Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]

#: name -> layer and the shape of one sample.
WITH_PARAMETERS: Layers = {
    "linear": (lambda: nn.Linear(3, 4), (3,)),
    "linear without bias": (lambda: nn.Linear(3, 4, bias=False), (3,)),
    "conv 1d": (lambda: nn.Conv1d(2, 3, 2), (2, 4)),
    "conv 2d": (lambda: nn.Conv2d(2, 3, 2), (2, 4, 4)),
    "conv 3d": (lambda: nn.Conv3d(2, 2, 2), (2, 3, 3, 3)),
    "conv 1d, grouped and dilated": (lambda: nn.Conv1d(4, 4, 2, groups=2, dilation=2), (4, 5)),
    "conv 2d, grouped": (lambda: nn.Conv2d(4, 2, 2, groups=2), (4, 3, 3)),
    "conv 2d, depthwise": (lambda: nn.Conv2d(3, 6, 3, groups=3, padding=1), (3, 3, 3)),
    "conv 2d, dilated, same": (lambda: nn.Conv2d(2, 2, 3, dilation=2, padding="same"), (2, 4, 4)),
    "conv 2d, one pixel": (lambda: nn.Conv2d(3, 4, 1), (3, 3, 3)),
    "conv 2d, one pixel, strided": (lambda: nn.Conv2d(3, 4, 1, stride=2), (3, 4, 4)),
    "conv 2d, circular": (lambda: padded("circular", nn.Conv2d), (2, 3, 3)),
    "conv 2d, reflected": (lambda: padded("reflect", nn.Conv2d), (2, 3, 3)),
    "conv 1d, replicated": (lambda: padded("replicate", nn.Conv1d), (2, 4)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(2, 3, 2, stride=2), (2, 3)),
    "transposed 2d, grouped": (lambda: nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2), (4, 2, 2)),
    "transposed 2d, padded": (
        lambda: nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1, output_padding=1), (2, 2, 2),
    ),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 2, 2), (2, 2, 2, 2)),
    "prelu": (lambda: nn.PReLU(), (3,)),
    "prelu of channels": (lambda: nn.PReLU(3), (3, 2, 2)),
    "layer norm": (lambda: nn.LayerNorm(4), (4,)),
    "layer norm without bias": (lambda: nn.LayerNorm([2, 3], bias=False), (2, 3)),
    "rms norm": (lambda: nn.RMSNorm(4), (4,)),
    "rms norm of tokens": (lambda: nn.RMSNorm(3), (2, 3)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (4,)),
    "group norm of sequences": (lambda: nn.GroupNorm(2, 4), (4, 3)),
    "group norm of images": (lambda: nn.GroupNorm(2, 4), (4, 3, 3)),
    "instance norm 1d": (lambda: nn.InstanceNorm1d(2, affine=True), (2, 4)),
    "instance norm 2d": (lambda: nn.InstanceNorm2d(2, affine=True), (2, 3, 3)),
    "instance norm 3d": (lambda: nn.InstanceNorm3d(2, affine=True), (2, 2, 2, 2)),
    "batch norm 1d": (lambda: settled(nn.BatchNorm1d(3)), (3,)),
    "batch norm 1d of sequences": (lambda: settled(nn.BatchNorm1d(2)), (2, 3)),
    "batch norm 2d": (lambda: settled(nn.BatchNorm2d(2)), (2, 3, 3)),
    "batch norm 3d": (lambda: settled(nn.BatchNorm3d(2)), (2, 2, 2, 2)),
    "instance norm, running statistics": (
        lambda: settled(nn.InstanceNorm2d(2, affine=True, track_running_stats=True)), (2, 3, 3),
    ),
}  # fmt: skip

#: Those without parameters: activations, pooling, padding, resampling.
WITHOUT: Layers = {
    **{
        name: (lambda kind=kind: kind(), (3,))
        for name, kind in {
            "elu": nn.ELU, "celu": nn.CELU, "selu": nn.SELU, "gelu": nn.GELU, "silu": nn.SiLU,
            "mish": nn.Mish, "relu": nn.ReLU, "relu6": nn.ReLU6, "leaky relu": nn.LeakyReLU,
            "hardshrink": nn.Hardshrink, "hardswish": nn.Hardswish, "hardtanh": nn.Hardtanh,
            "log sigmoid": nn.LogSigmoid, "sigmoid": nn.Sigmoid, "softplus": nn.Softplus,
            "softshrink": nn.Softshrink, "softsign": nn.Softsign, "tanh": nn.Tanh,
            "tanhshrink": nn.Tanhshrink, "identity": nn.Identity,
        }.items()
    },
    "softmax": (lambda: nn.Softmax(1), (3,)),
    "softmin": (lambda: nn.Softmin(1), (3,)),
    "log softmax": (lambda: nn.LogSoftmax(1), (3,)),
    "threshold": (lambda: nn.Threshold(0.1, 0.5), (3,)),
    "glu": (lambda: nn.GLU(1), (4,)),
    "relu in place": (lambda: nn.ReLU(inplace=True), (3,)),
    "gelu by tanh": (lambda: nn.GELU("tanh"), (3,)),
    "rrelu in eval": (lambda: nn.RReLU().eval(), (3,)),
    "dropout in eval": (lambda: nn.Dropout(0.5).eval(), (3,)),
    "dropout of channels in eval": (lambda: nn.Dropout2d(0.5).eval(), (2, 2, 2)),
    "dropout 1d in eval": (lambda: nn.Dropout1d(0.5).eval(), (2, 3)),
    "dropout 3d in eval": (lambda: nn.Dropout3d(0.5).eval(), (2, 2, 2, 2)),
    "alpha dropout in eval": (lambda: nn.AlphaDropout(0.5).eval(), (3,)),
    "feature alpha dropout in eval": (lambda: nn.FeatureAlphaDropout(0.5).eval(), (2, 3)),
    "softmax 2d": (lambda: nn.Softmax2d(), (3, 2, 2)),
    "local response norm": (lambda: nn.LocalResponseNorm(2), (4, 3)),
    "average pool 1d": (lambda: nn.AvgPool1d(2), (2, 4)),
    "average pool 2d": (lambda: nn.AvgPool2d(2), (2, 4, 4)),
    "average pool 3d": (lambda: nn.AvgPool3d(2), (2, 2, 4, 2)),
    "adaptive average pool 1d": (lambda: nn.AdaptiveAvgPool1d(2), (2, 5)),
    "adaptive average pool 2d": (lambda: nn.AdaptiveAvgPool2d(2), (2, 3, 3)),
    "adaptive average pool 3d": (lambda: nn.AdaptiveAvgPool3d(1), (2, 2, 3, 2)),
    "max pool 1d": (lambda: nn.MaxPool1d(2), (2, 4)),
    "max pool 2d": (lambda: nn.MaxPool2d(2), (2, 4, 4)),
    "max pool 3d": (lambda: nn.MaxPool3d(2), (2, 2, 4, 2)),
    "adaptive max pool 1d": (lambda: nn.AdaptiveMaxPool1d(2), (2, 5)),
    "adaptive max pool 2d": (lambda: nn.AdaptiveMaxPool2d(2), (2, 3, 3)),
    "adaptive max pool 3d": (lambda: nn.AdaptiveMaxPool3d(1), (2, 2, 3, 2)),
    "power pool 1d": (lambda: nn.Sequential(nn.Softplus(), nn.LPPool1d(2, 2)), (2, 4)),
    "power pool 2d": (lambda: nn.Sequential(nn.Softplus(), nn.LPPool2d(2, 2)), (2, 4, 4)),
    "power pool 3d": (lambda: nn.Sequential(nn.Softplus(), nn.LPPool3d(2, 2)), (2, 2, 2, 2)),
    "constant pad 1d": (lambda: nn.ConstantPad1d(1, 0.5), (2, 3)),
    "constant pad 2d": (lambda: nn.ConstantPad2d(1, 0.5), (2, 2, 2)),
    "constant pad 3d": (lambda: nn.ConstantPad3d(1, 0.5), (2, 1, 2, 2)),
    "zero pad 1d": (lambda: nn.ZeroPad1d(1), (2, 3)),
    "zero pad 2d": (lambda: nn.ZeroPad2d(1), (2, 2, 2)),
    "zero pad 3d": (lambda: nn.ZeroPad3d(1), (2, 1, 2, 2)),
    "circular pad 1d": (lambda: nn.CircularPad1d(1), (2, 3)),
    "circular pad 2d": (lambda: nn.CircularPad2d(1), (2, 2, 2)),
    "circular pad 3d": (lambda: nn.CircularPad3d(1), (2, 1, 2, 2)),
    "reflection pad 1d": (lambda: nn.ReflectionPad1d(1), (2, 3)),
    "reflection pad 2d": (lambda: nn.ReflectionPad2d(1), (2, 2, 2)),
    "reflection pad 3d": (lambda: nn.ReflectionPad3d(1), (2, 2, 2, 2)),
    "replication pad 1d": (lambda: nn.ReplicationPad1d(1), (2, 3)),
    "replication pad 2d": (lambda: nn.ReplicationPad2d(1), (2, 2, 2)),
    "replication pad 3d": (lambda: nn.ReplicationPad3d(1), (2, 1, 2, 2)),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), (4, 2, 2)),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), (1, 4, 4)),
    "channel shuffle": (lambda: nn.ChannelShuffle(2), (4, 2, 2)),
    "nearest": (lambda: nn.UpsamplingNearest2d(scale_factor=2), (2, 2, 2)),
    "bilinear": (lambda: nn.UpsamplingBilinear2d(scale_factor=2), (2, 2, 2)),
    "bicubic": (lambda: nn.Upsample(scale_factor=2, mode="bicubic"), (2, 2, 2)),
    "trilinear": (lambda: nn.Upsample(scale_factor=2, mode="trilinear"), (1, 2, 2, 2)),
    "fold": (lambda: nn.Sequential(nn.Unfold(2), nn.Tanh(), nn.Fold(3, 2)), (2, 3, 3)),
    "unflatten": (lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 2)), (4,)),
}  # fmt: skip


def padded(mode: str, kind: type[nn.Module]) -> nn.Module:
    """A convolution of as many outputs as inputs."""
    return kind(2, 2, 3, padding=1, padding_mode=mode)


def settled(norm: nn.Module) -> nn.Module:
    """A norm in eval mode, with other statistics than the initial ones, as after training."""
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 1.5)
    return norm.eval()


def scaled(build: Callable[[], nn.Module]) -> nn.Module:
    """A layer with scales, shifts and slopes other than torch's ones and zeros."""
    layer = build()
    for parameter in layer.parameters():
        if parameter.dim() < 2:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return layer


def of_one(layer: nn.Module, *shape: int) -> Case:
    """A batch of one sample."""
    return between(layer, *shape, n=1)


def first(layer: nn.Module, *shape: int) -> Case:
    """A layer that reads the inputs themselves."""
    x = torch.randn(3, *shape)
    head = nn.Linear(layer(x).flatten(1).shape[1], 2)
    return regression(nn.Sequential(layer, nn.Flatten(), head), x)


class MaxUnpool(nn.Module):
    """Pool, and put the maxima back where they were."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.pool = getattr(nn, f"MaxPool{dims}d")(2, return_indices=True)
        self.unpool = getattr(nn, f"MaxUnpool{dims}d")(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.unpool(*self.pool(x))


class Pairs(nn.Module):
    """A layer of two arguments, on two halves of the features."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.left, self.right, self.layer = nn.Linear(3, width), nn.Linear(3, width), layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.layer(torch.tanh(self.left(x)), torch.tanh(self.right(x)))
        return mixed if mixed.dim() > 1 else mixed[:, None]


def _pairs(build: Callable[[], nn.Module]) -> Entry:
    return Entry(lambda: regression(Pairs(build(), 3), torch.randn(4, 3)))


def _entries(layers: Layers, partitions: tuple[str, ...]) -> dict[str, Entry]:
    return {
        name: Entry(
            lambda build=build, shape=shape: between(scaled(build), *shape), partitions=partitions
        )
        for name, (build, shape) in layers.items()
    }


ENTRIES: dict[str, Entry] = {
    **_entries(WITH_PARAMETERS, ("full", "per_layer", "per_neuron")),
    **_entries(WITHOUT, ("per_layer",)),
    "hardsigmoid": Entry(
        lambda: between(nn.Hardsigmoid(), 3), {"hessian": (r"'1' \(Hardsigmoid\)", "GGN")}
    ),
    "cross-map norm": Entry(
        lambda: between(nn.CrossMapLRN2d(2), 3, 2, 2),
        {"all": (r"'1' \(CrossMapLRN2d\)",)},
        partitions=("per_layer",),
    ),
    "instance norm 2d, batch of one": Entry(
        lambda: of_one(scaled(lambda: nn.InstanceNorm2d(2, affine=True)), 2, 3, 3)
    ),
    "group norm of images, batch of one": Entry(
        lambda: of_one(scaled(lambda: nn.GroupNorm(1, 2)), 2, 3, 3)
    ),
    "group norm first": Entry(lambda: first(scaled(lambda: nn.GroupNorm(2, 4)), 4, 2, 2)),
    "layer norm first": Entry(lambda: first(scaled(lambda: nn.LayerNorm(4)), 4)),
    "max unpool 1d": Entry(lambda: between(MaxUnpool(1), 2, 4), partitions=("per_layer",)),
    "max unpool 2d": Entry(lambda: between(MaxUnpool(2), 1, 4, 4), partitions=("per_layer",)),
    "max unpool 3d": Entry(lambda: between(MaxUnpool(3), 1, 2, 2, 4), partitions=("per_layer",)),
    "bilinear form": _pairs(lambda: nn.Bilinear(3, 3, 2)),
    "cosine similarity": _pairs(nn.CosineSimilarity),
    "pairwise distance": _pairs(nn.PairwiseDistance),
}

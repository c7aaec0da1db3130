"""The measured workloads: five models with a loss, a batch of synthetic data, and partitions.

    python -m asv_bench.compare_libraries --workloads autoencoder lstm

Everything is seeded and float32. `quick` makes every workload small enough for a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bdhf
from bdhf.optim import Partition
from bdhf.problems import MLP, Autoencoder, ResNet, SequenceLSTM, Transformer
from bdhf.problems.problem import Problem

#: Function of torch -> its module, by which other libraries recognise a loss.
LOSSES: Mapping[object, type[nn.Module]] = {
    F.mse_loss: nn.MSELoss,
    F.cross_entropy: nn.CrossEntropyLoss,
}


@dataclass(frozen=True)
class Workload:
    """A model, its loss, one batch, and partitions by name."""

    name: str
    model: nn.Module
    loss: nn.Module
    batch: tuple[Tensor, Tensor]
    partitions: Mapping[str, Partition]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters, in the order of the model."""
        return list(self.model.parameters())

    @property
    def device(self) -> str:
        """The type of the device, "cpu" or "cuda"."""
        return self.parameters[0].device.type

    def gradient(self) -> tuple[Tensor, ...]:
        """The unit of every ratio: one forward pass and one reverse sweep."""
        inputs, targets = self.batch
        return torch.autograd.grad(self.loss(self.model(inputs), targets), self.parameters)

    def copy(self) -> Workload:
        """The same with a copy of the model, whose parameters may move."""
        return replace(self, model=deepcopy(self.model))

    def to(self, device: str) -> Workload:
        """The same on another device."""
        inputs, targets = (tensor.to(device) for tensor in self.batch)
        return replace(self, model=deepcopy(self.model).to(device), batch=(inputs, targets))


def tensors(model: nn.Module) -> Partition:
    """One block for each tensor, with separate weight and bias: the blocks of BackPACK's GGNMP."""
    return bdhf.Groups([[name] for name, _ in model.named_parameters()])


def _made(
    name: str, problem: Problem, samples: int, cut: Callable[[nn.Module], Mapping[str, Partition]]
) -> Workload:
    """The workload of a problem, with the full partition and those that `cut` returns."""
    model = problem.build()
    problem.initialise(model, torch.Generator().manual_seed(0))
    partitions = {"full": bdhf.Full(), **cut(model)}
    return Workload(name, model, LOSSES[problem.loss](), problem.example(samples), partitions)


def autoencoder(quick: bool, samples: int = 512) -> Workload:
    """784-1000-500-250-30 and back, mean squared error, N = 512: the encoder and the decoder."""
    problem = (
        Autoencoder(encoder=(16, 7, 4), downsample=7)
        if quick
        else Autoencoder(encoder=(784, 1000, 500, 250, 30))
    )

    def cut(model: nn.Module) -> Mapping[str, Partition]:
        halves = bdhf.Groups(problem.blocks)
        return {"halves": halves, "layers": bdhf.PerLayer(), "tensors": tensors(model)}

    return _made("autoencoder", problem, 6 if quick else samples, cut)


def classifier(quick: bool) -> Workload:
    """784-1000-500-250-100-10, cross-entropy, N = 512: layers, and single neurons."""
    problem = MLP(hidden=(9, 7) if quick else (1000, 500, 250, 100))

    def cut(model: nn.Module) -> Mapping[str, Partition]:
        neurons = bdhf.PerNeuron()
        return {"layers": bdhf.PerLayer(), "neurons": neurons, "tensors": tensors(model)}

    return _made("classifier", problem, 6 if quick else 512, cut)


def resnet(quick: bool) -> Workload:
    """Residual blocks of 16, 32 and 64 channels on 28×28 pixels, N = 128."""
    problem = ResNet(channels=(3, 4) if quick else (16, 32, 64), downsample=4 if quick else 1)
    return _made("resnet", problem, 4 if quick else 128, lambda _: _blocks(problem))


def lstm(quick: bool) -> Workload:
    """Three layers of 32 units with peepholes over 49 steps, N = 256."""
    problem = SequenceLSTM(hidden=3, layers=2) if quick else SequenceLSTM(hidden=32, layers=3)
    return _made("lstm", problem, 3 if quick else 256, lambda _: _blocks(problem))


def transformer(quick: bool) -> Workload:
    """Two encoder layers of width 32 on the 28 rows of an image, N = 64."""
    problem = Transformer(width=4, heads=2, feedforward=5) if quick else Transformer()
    return _made("transformer", problem, 3 if quick else 64, lambda _: _blocks(problem))


def _blocks(problem: Problem) -> Mapping[str, Partition]:
    return {"blocks": bdhf.Groups(problem.blocks)}


WORKLOADS: Mapping[str, Callable[[bool], Workload]] = {
    "autoencoder": autoencoder,
    "classifier": classifier,
    "resnet": resnet,
    "lstm": lstm,
    "transformer": transformer,
}

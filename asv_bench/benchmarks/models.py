"""The measured models: five problems of the package, small enough for one thread.

A product takes milliseconds, so the whole suite takes minutes. `asv_bench.workloads` has large
models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import bdhf
from bdhf.problems import MLP, Autoencoder, ResNet, SequenceLSTM, Transformer
from bdhf.problems.problem import Loss, Problem

#: Name -> constructor of the problem, and samples of its batch. Nothing is constructed on import: a
#: commit that cannot construct one problem can still be measured on the others.
MODELS: Mapping[str, tuple[Callable[[], Problem], int]] = {
    "autoencoder": (lambda: Autoencoder(encoder=(196, 64, 32, 8), downsample=2), 64),
    "classifier": (lambda: MLP(hidden=(64, 32)), 32),
    "resnet": (lambda: ResNet(channels=(6, 12), downsample=2), 16),
    "lstm": (lambda: SequenceLSTM(hidden=12, layers=2), 16),
    "transformer": (lambda: Transformer(width=16, heads=2, feedforward=32), 8),
}

#: Steps of a sequence, of the 49 that the problem has.
STEPS = 12

#: Partitions by their names in a spec; `groups` are the blocks of the paper.
PARTITIONS = ("full", "groups", "per_layer", "per_neuron")


@dataclass(frozen=True)
class Example:
    """A model with seeded parameters, its loss and a synthetic batch."""

    problem: Problem
    model: nn.Module
    batch: tuple[Tensor, Tensor]

    @property
    def loss(self) -> Loss:
        """The training loss."""
        return self.problem.loss

    def partition(self, name: str) -> bdhf.optim.Partition:
        """A partition of this model by its name."""
        return {
            "full": bdhf.Full(),
            "groups": bdhf.Groups(self.problem.blocks),
            "per_layer": bdhf.PerLayer(),
            "per_neuron": bdhf.PerNeuron(),
        }[name]


def example(name: str, device: str, dtype: torch.dtype = torch.float32) -> Example:
    """An example with seeded parameters and batch; sets torch to one thread."""
    torch.set_num_threads(1)
    make, samples = MODELS[name]
    problem = make()
    model = problem.build()
    problem.initialise(model, torch.Generator().manual_seed(0))
    inputs, targets = problem.example(samples)
    if name == "lstm":
        inputs = inputs[:, :STEPS]
    if inputs.is_floating_point():
        inputs = inputs.to(dtype)
    if targets.is_floating_point():
        targets = targets.to(dtype)
    return Example(problem, model.to(device, dtype), (inputs.to(device), targets.to(device)))

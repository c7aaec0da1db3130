"""The autoencoder of Zhang et al. (2017), §4.1, after Hinton & Salakhutdinov (2006)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bdhf.problems.data import DATASETS, Data
from bdhf.problems.initialise import glorot_

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


@dataclass(frozen=True)
class Autoencoder:
    """A deep autoencoder with mirrored decoder: hidden layers, a linear code, mean squared error.

    `encoder` lists the widths from the input to the code; the decoder mirrors them. `data_seed`
    shuffles the split, apart from the seeds of the runs. Raises ValueError for widths that do not
    start at the size of a sample, and for unknown names.

    >>> model = Autoencoder(encoder=(784, 32, 8)).build()
    >>> [name for name, _ in model.named_parameters()][::2]
    ['encoder.0.weight', 'encoder.2.weight', 'decoder.0.weight', 'decoder.2.weight']
    """

    data: str = "mnist5k"
    data_seed: int = 0
    encoder: Sequence[int] = (784, 200, 100, 30)
    activation: str = "tanh"
    code: str = "linear"
    output: str = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoder", tuple(self.encoder))
        if self.data not in DATASETS:
            raise ValueError(f"unknown data {self.data!r}; known: {', '.join(DATASETS)}")
        for field in ("activation", "code", "output"):
            if getattr(self, field) not in ACTIVATIONS:
                known = ", ".join(ACTIVATIONS)
                raise ValueError(f"unknown {field} {getattr(self, field)!r}; known: {known}")
        size = DATASETS[self.data].features
        if len(self.encoder) < 2 or min(self.encoder) < 1 or self.encoder[0] != size:
            raise ValueError(
                f"encoder {list(self.encoder)} must list widths from the {size} pixels of "
                f"{self.data} to the code: [{size}, 200, 100, 30]"
            )

    @property
    def blocks(self) -> Sequence[Sequence[str]]:
        """Encoder and decoder, the two blocks of the paper."""
        return (("encoder.*",), ("decoder.*",))

    @property
    def metrics(self) -> Sequence[str]:
        """`squared_error` is summed over pixels, per image, as the literature reports it."""
        return ("mean_squared_error", "squared_error")

    @property
    def samples(self) -> int:
        """Samples of the training data."""
        return DATASETS[self.data].samples

    def load(self) -> Data:
        """Load images in [0, 1]; the target of an image is the image."""
        return DATASETS[self.data].load(self.data_seed).map(lambda part: (part[0], part[0]))

    def build(self) -> nn.Module:
        """Build `encoder` and `decoder`, each a Sequential of linear layers and activations."""
        widths = tuple(self.encoder)
        halves = {
            "encoder": _stack(widths, self.activation, last=self.code),
            "decoder": _stack(widths[::-1], self.activation, last=self.output),
        }
        return nn.Sequential(OrderedDict(halves))

    def initialise(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw weights as Glorot & Bengio (2010)."""
        glorot_(model, generator)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error over samples and pixels."""
        return F.mse_loss(outputs, targets)

    def measure(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Mean squared error over pixels, and squared error summed over pixels, per image."""
        squared = (outputs - targets).square()
        return {"mean_squared_error": squared.mean(), "squared_error": squared.sum(1).mean()}


def _stack(widths: Sequence[int], activation: str, last: str) -> nn.Sequential:
    """Linear layers with an activation after each; the last one has its own."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1], ACTIVATIONS[last]())

"""A multilayer perceptron that classifies images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bdhf.nn import Glorot, Initialisation
from bdhf.problems import classification
from bdhf.problems.data import DATASETS, Data, Part, check_data, synthetic
from bdhf.problems.dense import check_activations, stack
from bdhf.problems.problem import Direction, Loss


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron on images: hidden layers, a linear output, cross-entropy.

    `hidden` lists the widths between the pixels and the classes; `activation` stands behind them.

    `data` names the data set; `data_seed` shuffles its split, apart from the seeds of the runs.

    Raises ValueError for no hidden layer, for a width below 1 and for unknown names.

    >>> [tuple(p.shape) for p in MLP(hidden=(100, 50)).build().parameters()][::2]
    [(100, 784), (50, 100), (10, 50)]
    """

    data: str = "mnist5k"
    data_seed: int = 0
    hidden: Sequence[int] = (100, 50)
    activation: str = "tanh"
    init: Initialisation = Glorot()  # noqa: RUF009 - parts are frozen, so sharing one is safe

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        check_data(self.data)
        check_activations(activation=self.activation)
        classification.check_widths(hidden=self.hidden)

    @property
    def blocks(self) -> Sequence[Sequence[str]]:
        """Two blocks, contiguous in depth, cut where their numbers of parameters differ least."""
        counts = [(n_in + 1) * n_out for n_in, n_out in pairwise(self._widths)]
        cut = min(range(1, len(counts)), key=lambda c: abs(sum(counts[:c]) - sum(counts[c:])))
        layers = [f"{2 * index}.*" for index in range(len(counts))]  # activations in between
        return (layers[:cut], layers[cut:])

    @property
    def metrics(self) -> Mapping[str, Direction]:
        """`error` is the share of wrong labels."""
        return classification.METRICS

    @property
    def samples(self) -> int:
        """Samples of the training data."""
        return DATASETS[self.data].samples

    @property
    def loss(self) -> Loss:
        """Cross-entropy, a mean over samples."""
        return F.cross_entropy

    def load(self) -> Data:
        """Load images (N, 784) in [0, 1] with their labels (N,)."""
        return DATASETS[self.data].load(self.data_seed)

    def example(self, samples: int) -> Part:
        """Make up images (N, 784) and labels (N,)."""
        return synthetic(DATASETS[self.data], samples)

    def build(self) -> nn.Module:
        """Build a Sequential of linear layers and activations."""
        return stack(self._widths, self.activation, last="linear")

    def initialise(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw the parameters as `init` does."""
        self.init(model, generator)

    def measure(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Share of wrong labels."""
        return classification.measure(outputs, targets)

    @property
    def _widths(self) -> Sequence[int]:
        dataset = DATASETS[self.data]
        return (dataset.features, *self.hidden, dataset.classes)

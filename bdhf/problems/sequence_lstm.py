"""The LSTM of Zhang et al. (2017), §4.2: an image, read pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bdhf.nn import Glorot, Initialisation, PeepholeLSTM
from bdhf.problems import classification
from bdhf.problems.data import DATASETS, Data, Part, check_data, pooled, synthetic
from bdhf.problems.problem import Direction, Loss

POOL = 4  # 28×28 pixels become 7×7


@dataclass(frozen=True)
class SequenceLSTM:
    """A stacked LSTM that reads an image as 49 steps of one pixel, and classifies its last state.

    Images are averaged to 7×7. `layers` LSTM layers of `hidden` units, with peephole connections
    unless `peepholes` is False; a linear layer on the top layer's last state; cross-entropy.

    `data` names the data set; `data_seed` shuffles its split, apart from the seeds of the runs.

    Raises ValueError for a size below 1 and for unknown data.

    >>> SequenceLSTM(layers=2).blocks
    [['lstm.*_l0'], ['lstm.*_l1', 'classifier.*']]
    """

    data: str = "mnist5k"
    data_seed: int = 0
    hidden: int = 32
    layers: int = 3
    peepholes: bool = True
    init: Initialisation = Glorot()  # noqa: RUF009 - parts are frozen, so sharing one is safe

    def __post_init__(self) -> None:
        check_data(self.data)
        classification.check_sizes(hidden=self.hidden, layers=self.layers)

    @property
    def blocks(self) -> Sequence[Sequence[str]]:
        """One block per LSTM layer, the classifier with the top one: the blocks of the paper."""
        layers = [f"lstm.*_l{layer}" for layer in range(self.layers)]
        return classification.spread(layers, bottom=[], top=["classifier.*"])

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
        """Load sequences (N, 49, 1) of pixels in [0, 1] with their labels (N,)."""
        return DATASETS[self.data].load(self.data_seed).map(self._read)

    def example(self, samples: int) -> Part:
        """Make up sequences (N, 49, 1) and labels (N,)."""
        return self._read(synthetic(DATASETS[self.data], samples))

    def build(self) -> nn.Module:
        """Build `lstm` and `classifier`."""
        dataset = DATASETS[self.data]
        channels = dataset.image[0]
        lstm: nn.Module
        if self.peepholes:
            lstm = PeepholeLSTM(channels, self.hidden, self.layers)
        else:
            lstm = nn.LSTM(channels, self.hidden, self.layers, batch_first=True)
        return _LastState(lstm, nn.Linear(self.hidden, dataset.classes))

    def initialise(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw the parameters as `init` does."""
        self.init(model, generator)

    def measure(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Share of wrong labels."""
        return classification.measure(outputs, targets)

    def _read(self, part: Part) -> Part:
        """Average the pixels and read them row by row, (N, 784) -> (N, 49, 1)."""
        images, labels = part
        small = pooled(images, DATASETS[self.data], POOL)
        return small.flatten(2).transpose(1, 2).contiguous(), labels


class _LastState(nn.Module):
    """A recurrent network with a classifier on the last state of its top layer."""

    def __init__(self, lstm: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.lstm, self.classifier = lstm, classifier

    def forward(self, inputs: Tensor) -> Tensor:
        """Score the classes, (N, T, n) -> (N, classes)."""
        outputs, _ = self.lstm(inputs)
        scores: Tensor = self.classifier(outputs[:, -1])
        return scores

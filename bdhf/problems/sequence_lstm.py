"""The LSTM of Zhang et al. (2017), §4.2: an image, read pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from bdhf.nn import Glorot, Initialisation, PeepholeLSTM
from bdhf.problems.classification import Classification, check_sizes, spread
from bdhf.problems.data import pooled

_POOL = 4  # 28×28 pixels become 7×7


@dataclass(frozen=True)
class SequenceLSTM(Classification):
    """A stacked LSTM that reads an image as 49 steps of one pixel and classifies the last state.

    Images are averaged to 7×7. `layers` LSTM layers of `hidden` units, with peephole connections
    unless `peepholes` is False; a linear layer on the top layer's last state; cross-entropy.

    `data` names the data set; `data_seed` shuffles its split, independently of the seeds of runs.

    Raises ValueError for a size below 1 and for unknown data.

    >>> SequenceLSTM(layers=2).blocks
    [['lstm.*_l0'], ['lstm.*_l1', 'classifier.*']]
    """

    hidden: int = 32
    layers: int = 3
    peepholes: bool = True
    init: Initialisation = Glorot()  # noqa: RUF009 - parts are frozen, so sharing one is safe

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(hidden=self.hidden, layers=self.layers)

    @property
    def blocks(self) -> Sequence[Sequence[str]]:
        """One block per LSTM layer, the classifier with the top one: the blocks of the paper."""
        layers = [f"lstm.*_l{layer}" for layer in range(self.layers)]
        return spread(layers, bottom=[], top=["classifier.*"])

    def build(self) -> nn.Module:
        """Build `lstm` and `classifier`."""
        channels = self._dataset.image[0]
        lstm: nn.Module
        if self.peepholes:
            lstm = PeepholeLSTM(channels, self.hidden, self.layers)
        else:
            lstm = nn.LSTM(channels, self.hidden, self.layers, batch_first=True)
        return _LastState(lstm, nn.Linear(self.hidden, self._dataset.classes))

    def _inputs(self, pixels: Tensor) -> Tensor:
        """Averaged pixels, read row by row, (N, 784) -> (N, 49, 1)."""
        small = pooled(pixels, self._dataset, _POOL)
        return small.flatten(2).transpose(1, 2).contiguous()


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

"""The residual network of Zhang et al. (2017), §4.3, without batch normalisation."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bdhf.nn import Glorot, Initialisation
from bdhf.problems import classification
from bdhf.problems.data import DATASETS, Data, Part, check_data, check_side, pooled, synthetic
from bdhf.problems.problem import Direction, Loss


@dataclass(frozen=True)
class ResNet:
    """A residual network without normalisation: a convolution, residual blocks, a linear layer.

    `channels` lists the widths of the blocks; from the second on they halve rows and columns. With
    L blocks a block computes relu(shortcut(x) + F(x) / √L), so that the scale of the activations
    does not grow with depth (Hayou et al. 2021, "Stable ResNet"). Cross-entropy. `downsample`
    averages squares of so many rows and columns first, for smaller experiments.

    `data` names the data set; `data_seed` shuffles its split, apart from the seeds of the runs.

    Raises ValueError for no block, for a width below 1, for unknown data, and for a `downsample`
    that does not divide the image.

    >>> ResNet().blocks
    [['stem.*', 'blocks.0.*'], ['blocks.1.*'], ['blocks.2.*', 'classifier.*']]
    """

    data: str = "mnist5k"
    data_seed: int = 0
    channels: Sequence[int] = (8, 16, 32)
    downsample: int = 1
    init: Initialisation = Glorot()  # noqa: RUF009 - parts are frozen, so sharing one is safe

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        check_data(self.data)
        classification.check_widths(channels=self.channels)
        check_side(DATASETS[self.data], self.downsample)

    @property
    def blocks(self) -> Sequence[Sequence[str]]:
        """One block per residual block, the stem with the first, the classifier with the last."""
        layers = [f"blocks.{index}.*" for index in range(len(self.channels))]
        return classification.spread(layers, bottom=["stem.*"], top=["classifier.*"])

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
        """Load images (N, 1, 28, 28), downsampled, in [0, 1] with their labels (N,)."""
        return DATASETS[self.data].load(self.data_seed).map(self._shape)

    def example(self, samples: int) -> Part:
        """Make up images (N, 1, 28, 28), downsampled, and labels (N,)."""
        return self._shape(synthetic(DATASETS[self.data], samples))

    def build(self) -> nn.Module:
        """Build `stem`, `blocks` and `classifier`, with a mean over pixels before the last."""
        dataset = DATASETS[self.data]
        first, last = self.channels[0], self.channels[-1]
        scale = 1 / math.sqrt(len(self.channels))
        blocks = [
            _Residual(n_in, n_out, stride=2 if index else 1, scale=scale)
            for index, (n_in, n_out) in enumerate(pairwise((first, *self.channels)))
        ]
        modules = {
            "stem": nn.Conv2d(dataset.image[0], first, 3, padding=1),
            "activation": nn.ReLU(),
            "blocks": nn.Sequential(*blocks),
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "classifier": nn.Linear(last, dataset.classes),
        }
        return nn.Sequential(OrderedDict(modules))

    def initialise(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw the parameters as `init` does."""
        self.init(model, generator)

    def measure(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Share of wrong labels."""
        return classification.measure(outputs, targets)

    def _shape(self, part: Part) -> Part:
        """Images as channels, rows and columns."""
        images, labels = part
        return pooled(images, DATASETS[self.data], self.downsample), labels


class _Residual(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which is a 1×1 convolution where the shape changes.

    The first convolution and the shortcut have the stride.
    """

    def __init__(self, n_in: int, n_out: int, stride: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        same = n_in == n_out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(n_in, n_out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_in, rows, columns) -> (N, n_out, rows / stride, columns / stride)."""
        branch = self.conv2(F.relu(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.scale * branch)

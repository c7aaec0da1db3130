"""The residual network of Zhang et al. (2017), §4.3, without batch normalisation."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from bdhf.nn import Glorot, Initialisation
from bdhf.problems.classification import Classification, check_widths, spread
from bdhf.problems.data import check_side, pooled


@dataclass(frozen=True)
class ResNet(Classification):
    """A residual network without normalisation: a convolution, residual blocks, a linear layer.

    `channels` lists the widths of the blocks; from the second on they halve rows and columns. With
    L blocks a block computes relu(shortcut(x) + F(x) / √L), so that the scale of the activations
    does not grow with depth (Hayou et al. 2021, "Stable ResNet"). Cross-entropy. `downsample` first
    averages squares of this many rows and columns, for smaller experiments.

    `data` names the data set; `data_seed` shuffles its split, independently of the seeds of runs.

    Raises ValueError for no block, for a width below 1, for unknown data, and for a `downsample`
    that does not divide the image.

    >>> ResNet().blocks
    [['stem.*', 'blocks.0.*'], ['blocks.1.*'], ['blocks.2.*', 'classifier.*']]
    """

    channels: Sequence[int] = (8, 16, 32)
    downsample: int = 1
    init: Initialisation = Glorot()  # noqa: RUF009 - parts are frozen, so sharing one is safe

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        super().__post_init__()
        check_widths(channels=self.channels)
        check_side(self._dataset, self.downsample)

    @property
    def blocks(self) -> Sequence[Sequence[str]]:
        """One block per residual block, the stem with the first, the classifier with the last."""
        layers = [f"blocks.{index}.*" for index in range(len(self.channels))]
        return spread(layers, bottom=["stem.*"], top=["classifier.*"])

    def build(self) -> nn.Module:
        """Build `stem`, `blocks` and `classifier`, with a mean over pixels before the last."""
        first, last = self.channels[0], self.channels[-1]
        scale = 1 / math.sqrt(len(self.channels))
        blocks = [
            _Residual(n_in, n_out, stride=2 if index else 1, scale=scale)
            for index, (n_in, n_out) in enumerate(pairwise((first, *self.channels)))
        ]
        modules = {
            "stem": nn.Conv2d(self._dataset.image[0], first, 3, padding=1),
            "activation": nn.ReLU(),
            "blocks": nn.Sequential(*blocks),
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "classifier": nn.Linear(last, self._dataset.classes),
        }
        return nn.Sequential(OrderedDict(modules))

    def _inputs(self, pixels: Tensor) -> Tensor:
        """Downsampled images, (N, 784) -> (N, 1, 28, 28)."""
        return pooled(pixels, self._dataset, self.downsample)


class _Residual(nn.Module):
    """Two 3×3 convolutions and a shortcut, which is a 1×1 convolution where the shape changes.

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

"""The autoencoder of Zhang et al. (2017), §4.1, after Hinton & Salakhutdinov (2006)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from bdhf.nn import Glorot, Initialisation
from bdhf.problems.data import Part, check_side, pooled
from bdhf.problems.dense import check_activations, stack
from bdhf.problems.images import ImageProblem
from bdhf.problems.problem import Better, Loss


@dataclass(frozen=True)
class Autoencoder(ImageProblem):
    """A deep autoencoder with mirrored decoder: hidden layers, a linear code, mean squared error.

    `encoder` lists the widths from the input to the code; the decoder mirrors them. `downsample`
    first averages squares of this many rows and columns. `activation` follows the hidden layers,
    `code` the code and `output` the reconstruction.

    `data` names the data set; `data_seed` shuffles its split, independently of the seeds of runs.

    Raises ValueError for widths that do not start at the size of a sample, for a `downsample` that
    does not divide the image, and for unknown names.

    >>> model = Autoencoder(encoder=(784, 32, 8)).build()
    >>> [name for name, _ in model.named_parameters()][::2]
    ['encoder.0.weight', 'encoder.2.weight', 'decoder.0.weight', 'decoder.2.weight']
    """

    encoder: Sequence[int] = (784, 200, 100, 30)
    activation: str = "tanh"
    code: str = "linear"
    output: str = "linear"
    downsample: int = 1
    init: Initialisation = Glorot()  # noqa: RUF009 - parts are frozen, so sharing one is safe

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoder", tuple(self.encoder))
        super().__post_init__()
        check_activations(activation=self.activation, code=self.code, output=self.output)
        check_side(self._dataset, self.downsample)
        size = self._dataset.features // self.downsample**2
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
    def metrics(self) -> Mapping[str, Better]:
        """`squared_error` is the sum over pixels per image, as in the literature."""
        return {"mean_squared_error": "lower", "squared_error": "lower"}

    @property
    def loss(self) -> Loss:
        """Mean squared error over samples and pixels."""
        return F.mse_loss

    def build(self) -> nn.Module:
        """Build `encoder` and `decoder`, each a Sequential of linear layers and activations."""
        widths = tuple(self.encoder)
        halves = {
            "encoder": stack(widths, self.activation, last=self.code),
            "decoder": stack(widths[::-1], self.activation, last=self.output),
        }
        return nn.Sequential(OrderedDict(halves))

    def measure(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Mean squared error over pixels, and squared error summed over pixels, per image."""
        squared = (outputs - targets).square()
        return {"mean_squared_error": squared.mean(), "squared_error": squared.sum(1).mean()}

    def _part(self, part: Part) -> Part:
        """Downsampled images, (N, 784) -> (N, 784): the target of an image is the image."""
        pixels = pooled(part[0], self._dataset, self.downsample).flatten(1)
        return pixels, pixels

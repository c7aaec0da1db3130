"""A transformer that reads an image row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from bdhf.nn import Glorot, Initialisation
from bdhf.problems import classification
from bdhf.problems.data import DATASETS, Data, Part, check_data, synthetic
from bdhf.problems.problem import Direction, Loss


@dataclass(frozen=True)
class Transformer:
    """A transformer encoder on the 28 rows of an image as tokens; classifies their mean.

    A linear embedding of `width` features, learned positions, `layers` encoder layers with `heads`
    heads and `feedforward` hidden units, no dropout; a linear layer on the mean over tokens;
    cross-entropy.

    `data` names the data set; `data_seed` shuffles its split, apart from the seeds of the runs.

    Raises ValueError for a size below 1, for a width that the heads do not divide and for unknown
    data.

    >>> Transformer(layers=2).blocks
    [['embedding.*', 'positions', 'layers.0.*'], ['layers.1.*', 'classifier.*']]
    """

    data: str = "mnist5k"
    data_seed: int = 0
    width: int = 32
    heads: int = 4
    layers: int = 2
    feedforward: int = 64
    init: Initialisation = Glorot()  # noqa: RUF009 - parts are frozen, so sharing one is safe

    def __post_init__(self) -> None:
        check_data(self.data)
        sizes = ("width", "heads", "layers", "feedforward")
        classification.check_sizes(**{name: getattr(self, name) for name in sizes})
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of the {self.heads} heads")

    @property
    def blocks(self) -> Sequence[Sequence[str]]:
        """One block per layer, the embedding with the first, the classifier with the last."""
        layers = [f"layers.{layer}.*" for layer in range(self.layers)]
        bottom, top = ["embedding.*", "positions"], ["classifier.*"]
        return classification.spread(layers, bottom=bottom, top=top)

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
        """Load images (N, 28, 28), rows of pixels in [0, 1], with their labels (N,)."""
        return DATASETS[self.data].load(self.data_seed).map(self._rows)

    def example(self, samples: int) -> Part:
        """Make up images (N, 28, 28) and labels (N,)."""
        return self._rows(synthetic(DATASETS[self.data], samples))

    def build(self) -> nn.Module:
        """Build `embedding`, `positions`, `layers` and `classifier`."""
        dataset = DATASETS[self.data]
        channels, rows, columns = dataset.image
        layers = [
            nn.TransformerEncoderLayer(
                self.width, self.heads, self.feedforward, dropout=0.0, batch_first=True
            )
            for _ in range(self.layers)
        ]
        return _Tokens(
            embedding=nn.Linear(channels * columns, self.width),
            positions=nn.Parameter(torch.zeros(rows, self.width)),
            layers=nn.Sequential(*layers),
            classifier=nn.Linear(self.width, dataset.classes),
        )

    def initialise(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw the parameters as `init` does."""
        self.init(model, generator)

    def measure(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Share of wrong labels."""
        return classification.measure(outputs, targets)

    def _rows(self, part: Part) -> Part:
        """Images as rows, each of all its channels."""
        images, labels = part
        image = images.unflatten(1, DATASETS[self.data].image)
        return image.transpose(1, 2).flatten(2), labels


class _Tokens(nn.Module):
    """Tokens through encoder layers, and a classifier on their mean."""

    def __init__(
        self,
        embedding: nn.Module,
        positions: nn.Parameter,
        layers: nn.Module,
        classifier: nn.Module,
    ) -> None:
        super().__init__()
        self.embedding, self.positions = embedding, positions
        self.layers, self.classifier = layers, classifier

    def forward(self, rows: Tensor) -> Tensor:
        """Score the classes, (N, tokens, features) -> (N, classes)."""
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
            tokens = self.layers(self.embedding(rows) + self.positions)
        scores: Tensor = self.classifier(tokens.mean(1))
        return scores

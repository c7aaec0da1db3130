"""A transformer that reads an image row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bdhf.nn import Glorot, Initialisation
from bdhf.problems.classification import Classification, check_sizes, spread


@dataclass(frozen=True)
class Transformer(Classification):
    """A transformer encoder with the 28 rows of an image as tokens; classifies their mean.

    A linear embedding of `width` features, learned positions, `layers` encoder layers with `heads`
    heads and `feedforward` hidden units, no dropout; a linear layer on the mean over tokens;
    cross-entropy.

    `data` names the data set; `data_seed` shuffles its split, independently of the seeds of runs.

    Raises ValueError for a size below 1, for a width that the heads do not divide and for unknown
    data.

    >>> Transformer(layers=2).blocks
    [['embedding.*', 'positions', 'layers.0.*'], ['layers.1.*', 'classifier.*']]
    """

    width: int = 32
    heads: int = 4
    layers: int = 2
    feedforward: int = 64
    init: Initialisation = Glorot()  # noqa: RUF009 - parts are frozen, so sharing one is safe

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = ("width", "heads", "layers", "feedforward")
        check_sizes(**{name: getattr(self, name) for name in sizes})
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of the {self.heads} heads")

    @property
    def blocks(self) -> Sequence[Sequence[str]]:
        """One block per layer, the embedding with the first, the classifier with the last."""
        layers = [f"layers.{layer}.*" for layer in range(self.layers)]
        bottom, top = ["embedding.*", "positions"], ["classifier.*"]
        return spread(layers, bottom=bottom, top=top)

    def build(self) -> nn.Module:
        """Build `embedding`, `positions`, `layers` and `classifier`."""
        channels, rows, columns = self._dataset.image
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
            classifier=nn.Linear(self.width, self._dataset.classes),
        )

    def _inputs(self, pixels: Tensor) -> Tensor:
        """Rows with all channels, (N, 784) -> (N, 28, 28)."""
        image = pixels.unflatten(1, self._dataset.image)
        rows: Tensor = image.transpose(1, 2).flatten(2)
        return rows


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

"""The interface of a problem: data, a model, a loss and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from bdhf.nn import Initialisation
from bdhf.problems.data import Data, Part

Loss = Callable[[Tensor, Tensor], Tensor]  # (outputs, targets) -> (), a mean over samples

#: Which values of a metric are better.
Better = Literal["lower", "higher"]


class Problem(Protocol):
    """A model and a data set: frozen, and cheap until `load`."""

    def __hash__(self) -> int:
        """Equal problems share one cached model."""

    @property
    def init(self) -> Initialisation:
        """How the parameters are drawn."""

    @property
    def blocks(self) -> Sequence[Sequence[str]]:
        """The blocks of the paper as glob patterns on parameter names: plain data."""

    @property
    def metrics(self) -> Sequence[str] | Mapping[str, Better]:
        """The names that `measure` returns, or a mapping from name to better direction."""

    @property
    def samples(self) -> int:
        """Samples of the training data."""

    @property
    def loss(self) -> Loss:
        """The training loss: a function of torch, so that its likelihood is recognised."""

    def load(self) -> Data:
        """Training, validation and test data, float32."""

    def example(self, samples: int) -> Part:
        """Synthetic inputs and targets with the shapes and dtypes of `load`, to estimate costs."""

    def build(self) -> nn.Module:
        """A model with arbitrary parameters; works under torch.device("meta")."""

    def initialise(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw the parameters, from this generator only."""

    def measure(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """The metrics without the loss, each a scalar, a mean over samples."""

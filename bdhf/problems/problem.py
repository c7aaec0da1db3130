"""What a problem gives to a training run: data, a model, a loss and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from bdhf.nn import Initialisation
from bdhf.problems.data import Data, Part

Loss = Callable[[Tensor, Tensor], Tensor]  # (outputs, targets) -> (), a mean over samples

#: Which values of a metric are better.
Direction = Literal["lower", "higher"]


class Problem(Protocol):
    """A model and a data set. Frozen, and cheap until `load` is called."""

    def __hash__(self) -> int:
        """Equal problems have one model, which is checked once."""

    @property
    def init(self) -> Initialisation:
        """How the parameters are drawn."""

    @property
    def blocks(self) -> Sequence[Sequence[str]]:
        """The blocks of the paper as glob patterns on parameter names: plain data."""

    @property
    def metrics(self) -> Sequence[str] | Mapping[str, Direction]:
        """Names of what `measure` returns; as a mapping, with which values of each are better."""

    @property
    def samples(self) -> int:
        """Samples of the training data."""

    @property
    def loss(self) -> Loss:
        """The training loss: torch's own function, so that its likelihood can be recognised."""

    def load(self) -> Data:
        """Training, validation and test data, float32."""

    def example(self, samples: int) -> Part:
        """Inputs and targets of the shapes and dtypes of `load`, made up: what costs are of."""

    def build(self) -> nn.Module:
        """A model with any parameters; works under torch.device("meta")."""

    def initialise(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw the parameters, from this generator only."""

    def measure(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Metrics (), each a mean over samples, beside the loss."""

"""What a problem gives to a training run: data, a model, a loss and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from bdhf.problems.data import Data


class Problem(Protocol):
    """A model and a data set. Frozen, and cheap until `load` is called."""

    @property
    def blocks(self) -> Sequence[Sequence[str]]:
        """The blocks of the paper as glob patterns on parameter names: plain data."""

    @property
    def metrics(self) -> Sequence[str]:
        """Names of what `measure` returns."""

    @property
    def samples(self) -> int:
        """Samples of the training data."""

    def load(self) -> Data:
        """Training, validation and test data, float32."""

    def build(self) -> nn.Module:
        """A model with any parameters; works under torch.device("meta")."""

    def initialise(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw the parameters, from this generator only."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The training loss, (): a mean over samples."""

    def measure(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Metrics (), each a mean over samples, beside the loss."""

"""Common code of all problems on images: their data, and the initialisation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from bdhf.nn import Initialisation
from bdhf.problems.data import DATASETS, Data, Dataset, Part, check_data, synthetic


@dataclass(frozen=True)
class ImageProblem(ABC):
    """A model on the images of a data set.

    A subclass adds its sizes, `init` as its last field, and the abstract members; also its metrics
    and its loss, unless it is a `Classification`.

    Raises ValueError for unknown data.
    """

    data: str = "mnist5k"
    data_seed: int = 0

    def __post_init__(self) -> None:
        check_data(self.data)

    @property
    @abstractmethod
    def init(self) -> Initialisation:
        """How the parameters are drawn: a field of the subclass."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[Sequence[str]]:
        """The blocks of the paper as glob patterns on parameter names: plain data."""

    @abstractmethod
    def build(self) -> nn.Module:
        """A model with arbitrary parameters; works under torch.device("meta")."""

    @abstractmethod
    def _part(self, part: Part) -> Part:
        """Inputs and targets of the model, from pixels (N, features) and labels (N,)."""

    @property
    def samples(self) -> int:
        """Samples of the training data."""
        return self._dataset.samples

    def load(self) -> Data:
        """Load images in [0, 1] in the form of the model's inputs, with their targets."""
        return self._dataset.load(self.data_seed).map(self._part)

    def example(self, samples: int) -> Part:
        """Synthetic inputs and targets with the shapes and dtypes of `load`."""
        return self._part(synthetic(self._dataset, samples))

    def initialise(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw the parameters as `init` does."""
        self.init(model, generator)

    @property
    def _dataset(self) -> Dataset:
        return DATASETS[self.data]

"""Training, validation and test data, and the split of a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Part = tuple[Tensor, Tensor]  # inputs (N, ...), targets (N, ...)


@dataclass(frozen=True)
class Data:
    """Three disjoint parts: training uses `train`, targets and tuning use `validation`."""

    train: Part
    validation: Part
    test: Part

    def map(self, change: Callable[[Part], Part]) -> Data:
        """The same data with `change` applied to each part."""
        return Data(change(self.train), change(self.validation), change(self.test))


class Dataset(Protocol):
    """A data set whose shape is available before it is loaded."""

    @property
    def features(self) -> int:
        """Entries of one sample."""

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, rows and columns of a sample, in the order of its entries."""

    @property
    def classes(self) -> int:
        """Number of labels: 0, 1, ..., classes - 1."""

    @property
    def samples(self) -> int:
        """Samples of the training part."""

    def load(self, seed: int) -> Data:
        """Load and split the data; `seed` shuffles the split."""


def synthetic(dataset: Dataset, samples: int) -> Part:
    """Synthetic pixels (N, features) and labels (N,) like those of a data set, without loading it.

    >>> from bdhf.problems.data import DATASETS
    >>> pixels, labels = synthetic(DATASETS["mnist5k"], 12)
    >>> tuple(pixels.shape), labels.tolist()
    ((12, 784), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    """
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(samples, dataset.features, generator=generator)
    return pixels, torch.arange(samples) % dataset.classes


def stratified_split(x: Tensor, y: Tensor, sizes: tuple[int, int, int], seed: int) -> Data:
    """Split into parts of these sizes with equal shares of every class, shuffled by `seed`.

    `y` is (N,) of class labels. Raises ValueError if the sizes do not add up to N, or a class does
    not split evenly.
    """
    if sum(sizes) != len(y):
        raise ValueError(
            f"parts of {sizes} samples do not add up to the {len(y)} samples of the data"
        )
    generator = torch.Generator().manual_seed(seed)
    chosen: list[list[Tensor]] = [[], [], []]
    for label in y.unique():
        members = (y == label).nonzero().reshape(-1)
        members = members[torch.randperm(len(members), generator=generator)]
        counts = [size * len(members) / len(y) for size in sizes]
        if not all(count.is_integer() for count in counts):
            raise ValueError(f"class {int(label)} does not split evenly into {sizes}")
        for part, own in zip(chosen, members.split([int(c) for c in counts]), strict=True):
            part.append(own)
    index = [torch.cat(part) for part in chosen]
    index = [part[torch.randperm(len(part), generator=generator)] for part in index]
    train, validation, test = ((x[part], y[part]) for part in index)
    return Data(train, validation, test)

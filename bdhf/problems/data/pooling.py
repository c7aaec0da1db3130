"""Smaller images: each pixel is the mean of a square of the original."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from bdhf.problems.data.data import Dataset


def pooled(images: Tensor, dataset: Dataset, side: int) -> Tensor:
    """Average squares of `side` rows and columns: (N, features) -> (N, C, rows/side, columns/side).

    Raises ValueError for a side that does not divide the image.
    """
    check_side(dataset, side)
    shaped = images.unflatten(1, dataset.image)
    return shaped if side == 1 else F.avg_pool2d(shaped, side)


def check_side(dataset: Dataset, side: int) -> None:
    """Raise ValueError for a `downsample` that does not divide the image."""
    rows, columns = dataset.image[1:]
    if side < 1 or rows % side or columns % side:
        raise ValueError(f"downsample of {side} does not divide images of {rows} × {columns}")

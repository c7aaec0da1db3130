"""Data sets by name, one file each."""

from collections.abc import Mapping

from bdhf.problems.data.data import Data, Dataset, Part, stratified_split, synthetic
from bdhf.problems.data.mnist5k import Mnist5k
from bdhf.problems.data.pooling import check_side, pooled

DATASETS: Mapping[str, Dataset] = {"mnist5k": Mnist5k()}


def check_data(name: str) -> None:
    """Raise ValueError for a name that is not in the table."""
    if name not in DATASETS:
        raise ValueError(f"unknown data {name!r}; known: {', '.join(DATASETS)}")


__all__ = [
    "DATASETS",
    "Data",
    "Dataset",
    "Part",
    "check_data",
    "check_side",
    "pooled",
    "stratified_split",
    "synthetic",
]

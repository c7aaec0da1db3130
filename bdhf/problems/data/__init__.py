"""Data sets by name. One file each."""

from collections.abc import Mapping

from bdhf.problems.data.data import Data, Dataset, Part, stratified_split
from bdhf.problems.data.mnist5k import Mnist5k

DATASETS: Mapping[str, Dataset] = {"mnist5k": Mnist5k()}

__all__ = ["DATASETS", "Data", "Dataset", "Part", "stratified_split"]

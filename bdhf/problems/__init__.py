"""What is trained. One file a problem; `experiments.build` lists them by name."""

from bdhf.problems.autoencoder import Autoencoder
from bdhf.problems.problem import Problem

__all__ = ["Autoencoder", "Problem"]

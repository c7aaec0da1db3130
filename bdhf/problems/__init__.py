"""The problems, one file each; `experiments/parts/tables.py` lists them by name."""

from bdhf.problems.autoencoder import Autoencoder
from bdhf.problems.mlp import MLP
from bdhf.problems.problem import Better, Loss, Problem
from bdhf.problems.resnet import ResNet
from bdhf.problems.sequence_lstm import SequenceLSTM
from bdhf.problems.transformer import Transformer

__all__ = [
    "MLP",
    "Autoencoder",
    "Better",
    "Loss",
    "Problem",
    "ResNet",
    "SequenceLSTM",
    "Transformer",
]

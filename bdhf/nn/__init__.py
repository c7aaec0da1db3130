"""Modules and initialisations that torch lacks, for `optim` and `problems`."""

from bdhf.nn.initialise import Glorot, Initialisation, Sparse
from bdhf.nn.peephole_lstm import PeepholeLSTM

__all__ = ["Glorot", "Initialisation", "PeepholeLSTM", "Sparse"]

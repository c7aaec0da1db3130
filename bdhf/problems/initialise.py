"""Initialisation of parameters from a generator that the caller owns."""

from __future__ import annotations

import torch
from torch import nn


def glorot_(model: nn.Module, generator: torch.Generator) -> None:
    """In place: weights of linear layers uniform in ±√(6 / (n_in + n_out)), biases zero.

    Glorot & Bengio (2010), eq. 16.

    >>> layer = nn.Linear(3, 3)
    >>> glorot_(layer, torch.Generator().manual_seed(0))
    >>> bool((layer.weight.abs() <= 1).all()), layer.bias.tolist()
    (True, [0.0, 0.0, 0.0])
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)

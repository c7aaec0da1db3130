"""Stacks of linear layers, each with an activation, and the activations by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from torch import nn

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


def check_activations(**fields: str) -> None:
    """Raise ValueError for a field whose activation is not in the table."""
    for field, name in fields.items():
        if name not in _ACTIVATIONS:
            raise ValueError(f"unknown {field} {name!r}; known: {', '.join(_ACTIVATIONS)}")


def stack(widths: Sequence[int], activation: str, last: str) -> nn.Sequential:
    """Linear layers, each followed by `activation`; the last one by `last`.

    >>> [type(module).__name__ for module in stack((4, 3, 2), "tanh", last="linear")]
    ['Linear', 'Tanh', 'Linear', 'Identity']
    """
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1], _ACTIVATIONS[last]())

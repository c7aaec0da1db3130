"""A multilayer perceptron that classifies images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from bdhf.nn import Glorot, Initialisation
from bdhf.problems.classification import Classification, check_widths
from bdhf.problems.dense import check_activations, stack


@dataclass(frozen=True)
class MLP(Classification):
    """A multilayer perceptron on images: hidden layers, a linear output, cross-entropy.

    `hidden` lists the widths between the pixels and the classes; `activation` follows each.

    `data` names the data set; `data_seed` shuffles its split, independently of the seeds of runs.

    Raises ValueError for no hidden layer, for a width below 1 and for unknown names.

    >>> [tuple(p.shape) for p in MLP(hidden=(100, 50)).build().parameters()][::2]
    [(100, 784), (50, 100), (10, 50)]
    """

    hidden: Sequence[int] = (100, 50)
    activation: str = "tanh"
    init: Initialisation = Glorot()  # noqa: RUF009 - parts are frozen, so sharing one is safe

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        super().__post_init__()
        check_activations(activation=self.activation)
        check_widths(hidden=self.hidden)

    @property
    def blocks(self) -> Sequence[Sequence[str]]:
        """Two blocks, contiguous in depth and as equal in size as possible."""
        counts = [(n_in + 1) * n_out for n_in, n_out in pairwise(self._widths)]
        cut = min(range(1, len(counts)), key=lambda c: abs(sum(counts[:c]) - sum(counts[c:])))
        layers = [f"{2 * index}.*" for index in range(len(counts))]  # activations in between
        return (layers[:cut], layers[cut:])

    def build(self) -> nn.Module:
        """Build a Sequential of linear layers and activations."""
        return stack(self._widths, self.activation, last="linear")

    @property
    def _widths(self) -> Sequence[int]:
        return (self._dataset.features, *self.hidden, self._dataset.classes)

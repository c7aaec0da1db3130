"""Initialisations: draw the parameters of a model from a generator of the caller.

The rules for weights, biases and tables of vectors are the same for every initialisation. They
differ in how they draw one weight matrix (units, inputs, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from bdhf.nn.peephole_lstm import PeepholeLSTM

Draw = Callable[[Tensor, torch.Generator], object]  # fills one matrix (units, inputs, ...)

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_EMBEDDING_STD = 0.02  # of embeddings and positions
_FORGET_BIAS = 1.0  # of an LSTM, so that its gate starts open (Jozefowicz et al. 2015, §5)


class Initialisation(Protocol):
    """Draws all parameters of a model from one generator."""

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Set every parameter in place; the values depend on the generator only."""


@dataclass(frozen=True)
class Glorot:
    """Weights uniform in ±√(6 / (n_in + n_out)), biases and peepholes zero.

    The exception is the bias of the forget gates of an LSTM, which is one. Each gate of a recurrent
    layer, each of the three projections of attention and each group of a convolution is a separate
    matrix. Scales of normalisation layers are one; parameters that are neither weight nor bias of a
    layer of torch (embeddings, positions) are normal with standard deviation 0.02.
    Glorot & Bengio (2010), eq. 16.

    >>> layer = nn.Linear(3, 3)
    >>> Glorot()(layer, torch.Generator().manual_seed(0))
    >>> bool((layer.weight.abs() <= 1).all()), layer.bias.tolist()
    (True, [0.0, 0.0, 0.0])
    """

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw every parameter of the model in place."""
        _fill(model, generator, _glorot)


@dataclass(frozen=True)
class Sparse:
    """Every unit gets `connections` incoming weights from N(0, scale²); the others are zero.

    `scale` is the standard deviation. A unit with fewer inputs uses all of them. The unit of a
    convolution is an output channel; a gate of a recurrent layer gets as many from its inputs as
    from the last state. The rest is as in `Glorot`. Raises ValueError for connections below 1 and
    for a scale that is not positive. Martens (2010), §5.

    >>> layer = nn.Linear(20, 3)
    >>> Sparse(connections=4)(layer, torch.Generator().manual_seed(0))
    >>> layer.weight.count_nonzero(1).tolist(), layer.bias.tolist()
    ([4, 4, 4], [0.0, 0.0, 0.0])
    """

    connections: int = 15
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.connections < 1:
            raise ValueError(f"Sparse connections must be at least 1; got {self.connections}")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"Sparse scale must be finite and above 0; got {self.scale}")

    def __call__(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw every parameter of the model in place."""
        _fill(model, generator, self._draw)

    def _draw(self, matrix: Tensor, generator: torch.Generator) -> None:
        """Fill one matrix (units, inputs, ...)."""
        rows = torch.zeros_like(matrix.flatten(1))  # (units, inputs)
        order = torch.rand(rows.shape, generator=generator, device=rows.device)
        chosen = order.topk(min(self.connections, rows.shape[1])).indices
        weights = torch.empty_like(chosen, dtype=rows.dtype).normal_(generator=generator)
        matrix.copy_(rows.scatter(1, chosen, self.scale * weights).view(matrix.shape))


def _glorot(matrix: Tensor, generator: torch.Generator) -> None:
    nn.init.xavier_uniform_(matrix, generator=generator)


@torch.no_grad()
def _fill(model: nn.Module, generator: torch.Generator, draw: Draw) -> None:
    """Set every parameter, in the order of the modules; `draw` fills its matrices."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if "bias" in name or "peephole" in name:
                nn.init.zeros_(parameter)
                if "bias_ih" in name and isinstance(module, (nn.LSTM, PeepholeLSTM)):
                    parameter[module.hidden_size : 2 * module.hidden_size] = _FORGET_BIAS
            elif isinstance(module, _NORMS):
                nn.init.ones_(parameter)
            elif matrices := _matrices(module, parameter):
                for matrix in matrices:
                    draw(matrix, generator)
            else:
                nn.init.normal_(parameter, std=_EMBEDDING_STD, generator=generator)


def _matrices(module: nn.Module, parameter: Tensor) -> Sequence[Tensor]:
    """Views of the weight matrices (units, inputs, ...) in a parameter, if any."""
    if isinstance(module, nn.Linear):
        return (parameter,)
    if isinstance(module, _ConvTransposeNd):
        return [group.transpose(0, 1) for group in parameter.chunk(module.groups)]
    if isinstance(module, _ConvNd):
        return parameter.chunk(module.groups)
    if isinstance(module, (nn.RNNBase, PeepholeLSTM)):  # by gates; a projection has fewer rows
        return torch.split(parameter, module.hidden_size)
    if isinstance(module, nn.MultiheadAttention):  # query, key and value may share a tensor
        return torch.split(parameter, module.embed_dim)
    return ()

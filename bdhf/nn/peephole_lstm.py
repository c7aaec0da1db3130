"""A stacked LSTM with peepholes, from operations that can be differentiated twice.

    i, f = σ(W x_t + U h_{t-1} + b + p ∘ c_{t-1})      g = tanh(W x_t + U h_{t-1} + b)
    c_t  = f ∘ c_{t-1} + i ∘ g
    o    = σ(W x_t + U h_{t-1} + b + p ∘ c_t)          h_t = o ∘ tanh(c_t)

Every gate has separate W, U, b and p. Fused kernels have no second derivative on a GPU, and no
forward-mode derivative in float32 on a CPU; this module has both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LSTMState = tuple[Tensor, Tensor]  # h and c


class PeepholeLSTM(nn.Module):
    """An LSTM with peephole connections, batch first; equal to `nn.LSTM` if the peepholes are zero.

    Maps (N, T, input) to outputs (N, T, H) of the top layer and the last h and c of every layer,
    (L, N, H) each; h and c start at zero. Parameters have the names and the order of gates
    (i, f, g, o) of `nn.LSTM`; `peephole_l{k}` (3H,) holds those of i, f and o. They start uniform
    in ±1/√H. Raises ValueError for a size below 1 and for inputs of another shape.

    Gers & Schmidhuber (2000); Gers, Schraudolph & Schmidhuber (2002).

    >>> lstm = PeepholeLSTM(1, 4, num_layers=2)
    >>> outputs, (h, c) = lstm(torch.zeros(5, 7, 1))
    >>> tuple(outputs.shape), tuple(h.shape), torch.equal(outputs[:, -1], h[-1])
    ((5, 7, 4), (2, 5, 4), True)
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1) -> None:
        super().__init__()
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"PeepholeLSTM {name} must be at least 1; got {size}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        for layer in range(num_layers):
            shapes = {
                "weight_ih": (4 * hidden_size, hidden_size if layer else input_size),
                "weight_hh": (4 * hidden_size, hidden_size),
                "bias_ih": (4 * hidden_size,),
                "bias_hh": (4 * hidden_size,),
                "peephole": (3 * hidden_size,),
            }
            for name, shape in shapes.items():
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(torch.empty(shape)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter uniform in ±1/√H, as `nn.LSTM` does."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, inputs: Tensor) -> tuple[Tensor, LSTMState]:
        """Run every layer over all steps, (N, T, input) -> (N, T, H), and h, c (L, N, H)."""
        if inputs.dim() != 3 or inputs.shape[2] != self.input_size:
            raise ValueError(
                f"PeepholeLSTM needs inputs of shape (samples, steps, {self.input_size}); got "
                f"{tuple(inputs.shape)}"
            )
        last: list[LSTMState] = []
        for layer in range(self.num_layers):
            inputs, state = self._layer(inputs, layer)
            last.append(state)
        return inputs, (torch.stack([h for h, _ in last]), torch.stack([c for _, c in last]))

    def _layer(self, inputs: Tensor, layer: int) -> tuple[Tensor, LSTMState]:
        """One layer over all steps, (N, T, n) -> (N, T, H)."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "peephole")
        w_ih, w_hh, b_ih, b_hh, peephole = (getattr(self, f"{name}_l{layer}") for name in names)
        projected = F.linear(inputs, w_ih, b_ih)  # (N, T, 4H), every step at once
        peepholes = peephole.chunk(3)
        h = c = inputs.new_zeros(len(inputs), self.hidden_size)
        outputs: list[Tensor] = []
        for step in projected.unbind(1):
            h, c = _cell(step + F.linear(h, w_hh, b_hh), c, peepholes)
            outputs.append(h)
        return torch.stack(outputs, 1), (h, c)

    def extra_repr(self) -> str:
        """The sizes, for print(model)."""
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"


def _cell(gates: Tensor, c: Tensor, peepholes: tuple[Tensor, ...]) -> LSTMState:
    """One step of one layer: gates (N, 4H) without peepholes, c (N, H) -> h and c (N, H)."""
    p_i, p_f, p_o = peepholes
    i, f, g, o = gates.chunk(4, 1)
    i, f = torch.sigmoid(i + p_i * c), torch.sigmoid(f + p_f * c)
    c = f * c + i * torch.tanh(g)
    return torch.sigmoid(o + p_o * c) * torch.tanh(c), c

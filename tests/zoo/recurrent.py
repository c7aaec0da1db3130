"""Recurrent layers and cells."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bdhf.nn import PeepholeLSTM
from tests.zoo.entry import Entry, classes


class Last(nn.Module):
    """A recurrent layer behind a linear one, and a linear one on its last output."""

    def __init__(self, recurrent: nn.Module, width: int) -> None:
        super().__init__()
        self.embed, self.recurrent, self.head = nn.Linear(2, 2), recurrent, nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(self.embed(x))[0][:, -1])


class Stepped(nn.Module):
    """A cell, called once a step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Packed(nn.Module):
    """An LSTM on sequences of several lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 2, batch_first=True), nn.Linear(2, 2)
        self.register_buffer("lengths", torch.tensor([3, 1, 2]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, self.lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.head(states.sum(1))


def peephole() -> nn.Module:
    """The project's LSTM, with peepholes that are not zero."""
    lstm = PeepholeLSTM(2, 2)
    for name, parameter in lstm.named_parameters():
        if "peephole" in name:
            nn.init.normal_(parameter)
    return lstm


def _last(build: Callable[[], nn.Module], width: int = 2) -> Entry:
    return Entry(lambda: classes(Last(build(), width), torch.randn(3, 3, 2)))


def _cell(build: Callable[[], nn.Module]) -> Entry:
    return Entry(lambda: classes(Stepped(build()), torch.randn(3, 3, 2)))


ENTRIES: dict[str, Entry] = {
    "rnn": _last(lambda: nn.RNN(2, 2, batch_first=True)),
    "rnn of relu": _last(lambda: nn.RNN(2, 2, nonlinearity="relu", batch_first=True)),
    "lstm": _last(lambda: nn.LSTM(2, 2, batch_first=True)),
    "lstm, two layers": _last(lambda: nn.LSTM(2, 2, num_layers=2, batch_first=True)),
    "lstm, both directions": _last(lambda: nn.LSTM(2, 2, bidirectional=True, batch_first=True), 4),
    "lstm, projected": _last(lambda: nn.LSTM(2, 3, proj_size=2, batch_first=True)),
    "gru": _last(lambda: nn.GRU(2, 2, batch_first=True)),
    "gru, both directions": _last(lambda: nn.GRU(2, 2, bidirectional=True, batch_first=True), 4),
    "peephole lstm": _last(peephole),
    "rnn cell": _cell(lambda: nn.RNNCell(2, 2)),
    "lstm cell": _cell(lambda: nn.LSTMCell(2, 2)),
    "gru cell": _cell(lambda: nn.GRUCell(2, 2)),
    "lstm, packed": Entry(lambda: classes(Packed(), torch.randn(3, 3, 2))),
}

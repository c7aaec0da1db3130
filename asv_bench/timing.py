"""Reliable ratios of times on a machine whose speed varies: interleaved rounds.

    ratio = seconds of a piece ÷ median seconds of the unit, just before and just after the piece

Every round takes each piece once, in turn, so that a slow minute affects all of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

Piece = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)

#: How often the unit is timed before a piece, and again after it.
UNITS = 3

#: Affordable rounds below which only the warm-up of a piece counts.
LONG = 1 / 3


@dataclass(frozen=True)
class Spread:
    """Quartiles of the ratios of some rounds."""

    low: float
    median: float
    high: float
    rounds: int

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Spread:
        """The quartiles; a single round is all three."""
        if len(ratios) == 1:
            return cls(ratios[0], ratios[0], ratios[0], 1)
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(low, median, high, len(ratios))

    def __str__(self) -> str:
        if self.rounds == 1:
            return f"{self.median:.3g}"
        return f"{self.median:.3g} ({self.low:.3g}, {self.high:.3g})"


def seconds(work: Piece) -> float:
    """Seconds of one call of `work`; on a GPU, until its last kernel has ended."""
    _wait()
    start = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def ratio(piece: Piece, unit: Piece) -> float:
    """Time of `piece` in units measured around it."""
    before = [seconds(unit) for _ in range(UNITS)]
    taken = seconds(piece)
    return taken / statistics.median([*before, *(seconds(unit) for _ in range(UNITS))])


def interleaved(
    pieces: Mapping[Key, Piece], unit: Piece, *, most: int, budget: float
) -> dict[Key, Spread]:
    """Quartiles of the ratio of every piece to the unit.

    The warm-up of a piece gives its number of rounds in `budget` seconds, from 1 to `most`; a piece
    that takes more than three times as long has only its warm-up.
    """
    seconds(unit)
    warm_up: dict[Key, float] = {}
    rounds: dict[Key, int] = {}
    for name, piece in pieces.items():
        begun = time.perf_counter()
        warm_up[name] = ratio(piece, unit)
        affordable = budget / (time.perf_counter() - begun)
        rounds[name] = 0 if affordable < LONG else max(1, min(most, int(affordable)))
    ratios: dict[Key, list[float]] = {name: [] for name in pieces}
    for turn in range(max(rounds.values(), default=0)):
        for name, piece in pieces.items():
            if turn < rounds[name]:
                ratios[name].append(ratio(piece, unit))
    return {name: Spread.of(measured or [warm_up[name]]) for name, measured in ratios.items()}

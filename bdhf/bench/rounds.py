"""Time two commits in turn, and compute the ratio.

    r_i = log(seconds of the candidate ÷ seconds of the baseline) in round i,  ABBA over rounds

A slow minute of the machine affects both. The interval of the median ratio is that of the sign
test, two order statistics of the r_i (Conover, Practical Nonparametric Statistics, §3.2): it
assumes no distribution, and a disturbed round moves it by one rank.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Least probability that an interval contains the median ratio of its pair of processes.
COVERAGE = 0.98

#: Least duration of a sample in seconds; shorter calls are repeated within it. The first calls
#: after the other process has run are slow: medians of 5 ms samples scatter three times as much.
_SAMPLE = 0.025

#: Seconds of a call above which a single call gives the duration of a case.
_LONG = 10.0

#: Least and largest number of rounds, by the duration of a case.
_FEWEST, _MOST = 7, 101

Timer = Callable[[int], float]  # number of calls -> seconds


@dataclass(frozen=True)
class Ratio:
    """Time of the candidate ÷ time of the baseline in one pair of processes."""

    low: float
    middle: float
    high: float
    before: float  # median seconds of one call
    now: float
    rounds: int


def timed_ratio(baseline: Timer, candidate: Timer, budget: float) -> Ratio:
    """Time both in turn for about `budget` seconds, with at least seven rounds.

    The first call of each is not counted. Raises the errors of the samples.
    """
    longest = max(baseline(1), candidate(1), 1e-9)
    if longest < _LONG:  # a first call includes imports and choices
        longest = max(baseline(1), candidate(1), 1e-9)
    number = max(1, math.ceil(_SAMPLE / longest))
    rounds = min(_MOST, max(_FEWEST, int(budget / (2 * number * longest))))
    before: list[float] = []
    now: list[float] = []
    for turn in range(rounds):
        both = ((baseline, before), (candidate, now))
        for sample, seconds in both if turn % 2 else reversed(both):
            seconds.append(sample(number) / number)
    return of_rounds(before, now)


def of_rounds(before: Sequence[float], now: Sequence[float]) -> Ratio:
    """The median ratio of paired seconds and its interval.

    >>> ratio = of_rounds([1.0] * 9, [1.1, 1.3, 1.2, 1.2, 1.2, 1.0, 1.25, 1.2, 9.0])
    >>> [round(value, 2) for value in (ratio.low, ratio.middle, ratio.high)]
    [1.0, 1.2, 9.0]
    """
    ratios = sorted(b / a for a, b in zip(before, now, strict=True))
    out = ratios_outside(len(ratios))
    return Ratio(
        low=ratios[out], middle=statistics.median(ratios), high=ratios[-1 - out],
        before=statistics.median(before), now=statistics.median(now), rounds=len(ratios),
    )  # fmt: skip


def ratios_outside(rounds: int) -> int:
    """The number of ratios outside the interval on either side; 0 where all are needed.

    >>> [ratios_outside(rounds) for rounds in (7, 9, 11, 15, 25)]
    [0, 0, 1, 2, 6]
    """
    tail, out = 0.0, 0
    while out < rounds // 2:
        tail += math.comb(rounds, out) * 0.5**rounds
        if 2 * tail > 1 - COVERAGE:
            break
        out += 1
    return max(0, out - 1)

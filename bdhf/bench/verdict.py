"""The verdict of a benchmark: counts exactly, amounts to 1 %, times by their ratio.

One pair of processes only raises a suspicion about a time: the memory layout of a process changes
the time of a convolution by up to a third, until the process ends. A suspect is timed again in new
pairs, seven in all, and is slower if the ratio of every pair is above the margin. The lowest and
the highest of seven form the interval of the median over pairs, at 98 % as within a pair.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bdhf.bench.process import Case
from bdhf.bench.rounds import Ratio

#: Relative change up to which a tracked amount (bytes, a loss) counts as the same.
_TOLERANCE = 0.01

#: Pairs of processes that must all show a change of time: `ratios_outside(7)` is 0.
PAIRS = 7


class CaseVerdict(StrEnum):
    """The candidate compared with the baseline."""

    SAME = "as before"
    FASTER = "faster"
    SLOWER = "slower"
    UNDECIDED = "undecided"
    LESS = "less"
    MORE = "more"
    FAILS = "fails now"
    LEFT_OUT = "left out now"
    NEW = "measured now"
    NOT_MEASURED = "not measured"

    @property
    def is_regression(self) -> bool:
        """Whether the commit should not be merged as it is."""
        return self in (
            CaseVerdict.SLOWER,
            CaseVerdict.MORE,
            CaseVerdict.FAILS,
            CaseVerdict.LEFT_OUT,
        )


@dataclass(frozen=True)
class Missing:
    """Why there is no number on one side."""

    reason: str
    skipped: bool = False  # left out on purpose, not failed


Value = float | Missing


@dataclass(frozen=True)
class CaseFinding:
    """One case on both sides. Times have a ratio for every pair of processes."""

    case: Case
    verdict: CaseVerdict
    before: Value
    now: Value
    ratios: tuple[Ratio, ...] = ()

    @property
    def is_measured(self) -> bool:
        """Whether there is a number on both sides."""
        return not isinstance(self.before, Missing) and not isinstance(self.now, Missing)

    @property
    def is_left_out(self) -> bool:
        """Whether the benchmark leaves the case out on both sides."""
        sides = (self.before, self.now)
        return all(isinstance(side, Missing) and side.skipped for side in sides)


def of_values(case: Case, before: Value, now: Value) -> CaseFinding:
    """The finding of a tracked number, or of a case that one side cannot run."""
    return CaseFinding(case, _of_values(case, before, now), before, now)


def of_ratios(case: Case, ratios: Sequence[Ratio], margin: float) -> CaseFinding:
    """The finding of a time, from the ratios of its pairs of processes so far."""
    last = ratios[-1]
    return CaseFinding(case, _of_ratios(ratios, margin), last.before, last.now, tuple(ratios))


def _of_values(case: Case, before: Value, now: Value) -> CaseVerdict:
    if isinstance(now, Missing):
        if isinstance(before, Missing):
            return CaseVerdict.NOT_MEASURED
        return CaseVerdict.LEFT_OUT if now.skipped else CaseVerdict.FAILS
    if isinstance(before, Missing):
        return CaseVerdict.NEW
    slack = 0.0 if case.exact else _TOLERANCE * abs(before)
    if abs(now - before) <= slack:
        return CaseVerdict.SAME
    return CaseVerdict.MORE if now > before else CaseVerdict.LESS


def _of_ratios(ratios: Sequence[Ratio], margin: float) -> CaseVerdict:
    if all(ratio.middle > margin for ratio in ratios):
        return CaseVerdict.SLOWER
    if all(ratio.middle < 1 / margin for ratio in ratios):
        return CaseVerdict.FASTER
    if any(1 / margin <= ratio.low and ratio.high <= margin for ratio in ratios):
        return CaseVerdict.SAME
    return CaseVerdict.UNDECIDED


def ratio_interval(ratios: Sequence[Ratio]) -> tuple[float, float, float]:
    """Low, middle and high: of the rounds of a single pair, or of the medians of several pairs."""
    if len(ratios) == 1:
        return ratios[0].low, ratios[0].middle, ratios[0].high
    middles = sorted(ratio.middle for ratio in ratios)
    return middles[0], statistics.median(middles), middles[-1]

"""Ratios of times that are measured in turn, and their intervals."""

import math

import numpy as np
import pytest

from bdhf.bench.rounds import COVERAGE, of_rounds, ratios_outside, timed_ratio


@pytest.mark.parametrize("rounds", [7, 8, 12, 25, 60, 101])
def test_the_interval_holds_the_median(rounds):
    """For any distribution the interval covers the median, and the next shorter one does not."""
    out = ratios_outside(rounds)
    cdf = np.cumsum([math.comb(rounds, k) * 0.5**rounds for k in range(rounds)])

    assert 1 - 2 * cdf[out] >= COVERAGE
    assert out + 1 >= rounds // 2 or 1 - 2 * cdf[out + 1] < COVERAGE


def test_the_interval_covers_skewed_times():
    """Of 2,000 simulated series of disturbed rounds at least the stated share contain the ratio."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        before = 1 + rng.pareto(3, 15)
        now = 1.3 * (1 + rng.pareto(3, 15))
        ratio = of_rounds(list(before), list(now))
        held += ratio.low <= 1.3 <= ratio.high

    assert held >= 2000 * COVERAGE - 3 * math.sqrt(2000 * COVERAGE * (1 - COVERAGE))


def test_one_disturbed_round_moves_nothing_far():
    """A round that took a hundred times as long moves the interval by one rank."""
    now = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 1.08, 1.09, 1.1]

    ratio = of_rounds([1.0] * 11, [*now[:-1], 100.0])

    assert (ratio.low, ratio.middle, ratio.high) == (1.01, 1.05, 1.09)


class Clocked:
    """A timer with a fixed duration, which records its calls."""

    def __init__(self, name, seconds, calls):
        self.name, self.seconds, self.calls = name, seconds, calls

    def __call__(self, number):
        """The seconds of these calls."""
        self.calls.append((self.name, number))
        return number * self.seconds


def test_rounds_alternate_and_are_long_enough():
    """The order changes from round to round; a short call is repeated within a sample."""
    calls = []

    ratio = timed_ratio(Clocked("a", 1e-4, calls), Clocked("b", 2e-4, calls), budget=1.0)

    sampled = [name for name, number in calls if number > 1]
    assert sampled[:8] == list("baabbaab")
    assert {number for _, number in calls[4:]} == {125}
    assert ratio.rounds == 20
    assert ratio.low == ratio.middle == ratio.high == pytest.approx(2.0)


def test_a_long_piece_gets_the_fewest_rounds():
    """A case that is longer than the budget is timed seven times after one call."""
    calls = []

    ratio = timed_ratio(Clocked("a", 11.0, calls), Clocked("b", 11.0, calls), budget=1.0)

    assert ratio.rounds == 7
    assert len(calls) == 16

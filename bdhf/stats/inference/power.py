"""Before and after the runs: what can n pairs decide?

    power     P(p ≤ level) of the sign-flip test, for log ratios ~ Normal(effect, sd²)
    seeds     the fewest pairs that are enough for 80 % power, and for any p ≤ level at all

With few pairs the sign-flip p takes few values, so up to 12 pairs its power is simulated with the
test itself. Beyond that, and in the search for seeds, it is approximated by the power of Student's
t-test (noncentral t).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bdhf.stats.inference.paired import pairs_needed

#: The required power.
ENOUGH = 0.8

#: The largest number of pairs that is suggested.
MOST_SEEDS = 10_000

_SIMULATED_UP_TO, _DRAWS = 12, 20_000


def power(effect: float, sd: float, pairs: int, level: float) -> float:
    """Probability that n pairs give p ≤ level, for a true mean log ratio and its spread over seeds.

    Raises ValueError for a spread that is not positive and finite.

    >>> round(power(math.log(0.8), sd=0.2, pairs=12, level=0.05), 2)
    0.94
    >>> power(math.log(0.5), sd=0.1, pairs=5, level=0.05)
    0.0
    """
    if not 0 < sd < math.inf:
        raise ValueError(f"the standard deviation must be positive and finite, not {sd}")
    if pairs < pairs_needed(level):
        return 0.0
    if pairs <= _SIMULATED_UP_TO:
        return float((_two_sided(_normals(pairs) + abs(effect) / sd) <= level).mean())
    return _t_power(abs(effect) / sd, pairs, level)


def seeds_to_decide(
    effect: float,
    sd: float,
    level: float,
    margin: float = math.nan,
    *,
    farthest: float | None = None,
    more_than: int = 0,
) -> float:
    """Give the pairs with 80 % power, if the effect and its spread over seeds are the true ones.

    Enough for better or worse at `level`, or with a margin (a ratio) for equivalent, whichever
    needs fewer, and more than `more_than`, which did not decide. `farthest` is the largest distance
    from 0 of an effect that is only bounded; the test for equivalent uses it. NaN where the spread
    is unknown or 0; infinite beyond MOST_SEEDS.

    >>> seeds_to_decide(math.log(0.9), sd=0.2, level=0.05)
    31.0
    >>> seeds_to_decide(0.0, sd=0.1, level=0.05, margin=1.1)
    11.0
    """
    if not (0 < sd < math.inf and math.isfinite(effect)):
        return math.nan
    away = abs(effect) if farthest is None else farthest
    room = math.log(margin) - away if margin > 1 else 0.0
    pairs = min(
        _first(lambda n: _t_power(abs(effect) / sd, n, level), pairs_needed(level)),
        _first(lambda n: _tost_power(away, sd, margin, n, level), 2) if room > 0 else math.inf,
    )
    return max(pairs, float(more_than + 1))


def _first(power_of: Callable[[int], float], least: int) -> float:
    """The fewest pairs with enough power, by bisection; infinite beyond MOST_SEEDS."""
    if power_of(MOST_SEEDS) < ENOUGH:
        return math.inf
    low, high = least - 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= ENOUGH else (middle, high)
    return float(max(high, least))


def _t_power(ratio: float, pairs: int, level: float) -> float:
    """Power of the two-sided t-test of a mean that is `ratio` standard deviations from 0."""
    if pairs < 2:
        return 0.0
    critical = float(stats.t.isf(level / 2, pairs - 1))
    shift = ratio * math.sqrt(pairs)
    above, below = (
        stats.nct.sf(critical, pairs - 1, shift),
        stats.nct.cdf(-critical, pairs - 1, shift),
    )
    return float(np.nan_to_num(above, nan=1.0 if shift > critical else 0.0) + np.nan_to_num(below))


def _tost_power(effect: float, sd: float, margin: float, pairs: int, level: float) -> float:
    """Power of two one-sided t-tests, bounded from below by that of both halves."""
    if pairs < 2:
        return 0.0
    critical = float(stats.t.isf(level, pairs - 1))
    limit, root = math.log(margin), math.sqrt(pairs)
    halves = [
        float(stats.norm.cdf((limit + sign * effect) * root / sd - critical)) for sign in (-1, 1)
    ]
    return max(0.0, sum(halves) - 1)


@lru_cache(maxsize=16)
def _normals(pairs: int) -> NDArray[np.float64]:
    """Standard normal pairs (_DRAWS, pairs), the same at every call."""
    return np.random.default_rng(0).standard_normal((_DRAWS, pairs))


def _two_sided(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exact two-sided sign-flip p of every row of continuous samples (draws, n)."""
    n = samples.shape[1]
    subsets = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(float)  # (2ⁿ, n)
    below = np.zeros(len(samples), dtype=int)
    above = np.zeros(len(samples), dtype=int)
    for start in range(0, len(samples), 1000):
        part = slice(start, start + 1000)
        sums = samples[part] @ subsets[1:].T
        below[part], above[part] = (sums <= 0).sum(axis=1), (sums >= 0).sum(axis=1)
    return np.asarray(np.minimum(1.0, 2 * (1 + np.minimum(below, above)) / 2**n))

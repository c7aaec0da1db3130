"""The interval of a critical batch size: every value that a test over seeds does not reject.

For a value B₀ of B_crit, S_min and σ are fitted as in `censored`. The score of seed i is then

    u_i = Σ_j r_ij (g_j - ḡ),    g_j = B₀ / (B_j + B₀)

g_j is the slope of log S(B_j) in log B₀. r_ij is the standardised residual of a hit, and of a miss
the hazard at the updates up to which it was observed. ḡ is the mean of g over the runs, weighted by
the curvature of their likelihood in log S_min, so that an error of S_min does not count. B₀ is in
the interval where Student's t of u_1 … u_n, with n - 1 degrees of freedom, does not reject a mean
of 0. This is a score test with the spread estimated between seeds.

Where every seed has a run at every size and none misses, u_i does not depend on S_min, and the test
is exact for normal noise and any shared effect of a seed. docs/statistics.md has the simulated
coverage of the interval, with and without misses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

from bdhf.stats.scaling.censored import CensoredSample, Fit, fit_at, residuals

_LEAST_SEEDS = 3

#: Values of B₀ that are tested over the whole range, before root finding refines the ends.
_TRIED = 17

_WITHIN = 1e-5  # of the log of an end


def critical_batch_interval(
    sample: CensoredSample, seeds: NDArray[np.int64], best: Fit, alpha: float
) -> tuple[float, float]:
    """The lower and the upper end, in samples; 0 and inf where the search reaches its limit.

    `seeds` (runs,) is the seed of every run. Fewer than three seeds have no interval. The interval
    includes rejected values that lie between values that are not rejected.
    """
    names = np.unique(seeds)
    if len(names) < _LEAST_SEEDS:
        return 0.0, math.inf
    rows = [np.flatnonzero(seeds == name) for name in names]
    beyond = float(stats.t.ppf(1 - alpha / 2, len(rows) - 1))

    def excess(log_b: float) -> float:
        """Above 0 where the value is rejected."""
        return min(abs(t_statistic(sample, rows, math.exp(log_b))) - beyond, 1e6)

    low, high = (math.log(limit) for limit in sample.limits)
    tried = np.linspace(low, high, _TRIED)
    held = np.array([excess(value) <= 0 for value in tried])
    inside = [*tried[held].tolist(), math.log(best.b_crit)]
    first, last = min(inside), max(inside)
    below, above = tried[tried < first], tried[tried > last]
    return (
        math.exp(_edge(excess, float(below[-1]), first)) if len(below) else 0.0,
        math.exp(_edge(excess, float(above[0]), last)) if len(above) else math.inf,
    )


def t_statistic(sample: CensoredSample, rows: Sequence[NDArray[np.intp]], b_crit: float) -> float:
    """Student's t of the scores of the seeds at a B_crit; `rows` are the runs of every seed."""
    fitted = fit_at(sample, b_crit)
    slope = b_crit / (sample.size + b_crit)
    residual, weight = residuals(sample, fitted)
    score = residual * (slope - np.average(slope, weights=weight))
    of_seeds = np.array([score[of_seed].sum() for of_seed in rows])
    error = float(of_seeds.std(ddof=1)) / math.sqrt(len(of_seeds))
    mean = float(of_seeds.mean())
    return mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0


def _edge(excess: Callable[[float], float], outside: float, inside: float) -> float:
    """The end of the interval, between a rejected value and one that is not rejected."""
    if excess(inside) >= 0:  # the best fit itself, where seeds have no spread
        return inside
    return float(brentq(excess, outside, inside, xtol=_WITHIN))

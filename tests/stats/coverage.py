"""Coverage of the interval of a critical batch size: `python -m tests.stats.coverage`.

Groups are simulated from the law with known B_crit, and tested as in
`bdhf.stats.scaling.intervals`. docs/statistics.md has the table.
"""

import sys

import numpy as np
import pandas as pd
from scipy import stats

from bdhf.stats.scaling.censored import CensoredSample
from bdhf.stats.scaling.intervals import t_statistic
from tests.stats.simulation import markdown

SIZES = np.array([50.0, 100, 200, 400, 800, 1600])
TRUE_B_CRIT = (60.0, 300.0, 900.0)  # samples
SEEDS, MISSES, SHARED = (3, 5, 8), (0.0, 0.3), (0.0, 0.3)
SIGMA, ALPHA = 0.15, 0.05

#: Updates at an infinite batch. Costs are rounded up, so the limits do not apply to few updates.
S_MIN, FEW = 100.0, 5.0

#: Limits of the coverage, up to two standard errors of the simulation.
LIMITS = (0.92, 0.98)


def table(draws, *, seeds=SEEDS, misses=MISSES, shared=SHARED, s_min=S_MIN):
    """A row per setting: the coverage of the interval over `draws` of each."""
    return pd.DataFrame(
        [
            {"S_min": f"{s_min:g}", "shared sd": f"{sd:g}", "seeds": str(n)}
            | {"misses": f"{share:.0%}".replace("%", " %")}
            | rates(draws, n, share, sd, s_min)
            for sd in shared
            for share in misses
            for n in seeds
        ]
    )


def coarse(draws, **settings):
    """The same for runs with few updates, which are whole numbers."""
    return table(draws, misses=(0.0,), shared=(0.0,), s_min=FEW, **settings)


def rates(draws, n, share, sd, s_min):
    """Over draws of every true B_crit: the rate of intervals that cover it, and of open ones.

    An interval covers a value where the test does not reject it, and has no end where the test does
    not reject a limit of the search. Calling the test directly saves time.
    """
    covered, opened = [], []
    beyond = stats.t.ppf(1 - ALPHA / 2, n - 1)
    for b_crit in TRUE_B_CRIT:
        rng = np.random.default_rng([n, int(b_crit), int(100 * share), int(100 * sd)])
        law = s_min * (1 + b_crit / SIZES[:, None])
        budget = _budget(law, share, sd)
        for _ in range(draws):
            sample, rows = _group(rng, law, n, budget, sd)
            statistics = [abs(t_statistic(sample, rows, b)) for b in (b_crit, *sample.limits)]
            covered.append(statistics[0] <= beyond)
            opened.append(min(statistics[1:]) <= beyond)
    return {"interval covers": np.mean(covered), "without an end": np.mean(opened)}


def broken(rates, draws):
    """The rows whose coverage exceeds the limits by more than two standard errors."""
    error = 2 * np.sqrt(0.05 * 0.95 / (draws * len(TRUE_B_CRIT)))
    low, high = LIMITS
    return rates[~rates["interval covers"].between(low - error, high + error)]


def _group(rng, law, n, budget, sd):
    """Runs of a group, and the rows of every seed, whose shared effect has the spread `sd`."""
    noise = rng.normal(0, SIGMA, (len(SIZES), n)) + rng.normal(0, sd, n)
    updates = np.ceil(law * np.exp(noise))
    size, seed = (grid.ravel() for grid in np.meshgrid(SIZES, np.arange(n), indexing="ij"))
    sample = CensoredSample(size, np.minimum(updates, budget).ravel(), (updates <= budget).ravel())
    return sample, [np.flatnonzero(seed == i) for i in range(n)]


def _budget(law, share, sd):
    """The budget that this share of all runs misses."""
    if not share:
        return np.inf
    noise = np.random.default_rng(0).normal(0, np.hypot(SIGMA, sd), (len(SIZES), 20_000))
    return float(np.quantile(np.ceil(law * np.exp(noise)), 1 - share))


def main():
    """Print the table of 400 draws of every true B_crit."""
    draws = 400
    rates = table(draws)
    sys.stdout.write(f"{markdown(pd.concat([rates, coarse(draws)]))}\n")
    sys.exit(1 if len(broken(rates, draws)) else 0)


if __name__ == "__main__":
    main()

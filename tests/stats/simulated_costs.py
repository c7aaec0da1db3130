"""Simulated costs to target with known ground truth.

    log U_ij = log 300 + 0.3 s_i + sd z_ij / √2 + log ratio (candidates only)      s, z ~ N(0, 1)

U, rounded up, are the updates of seed i in arm j: s is the effect of a seed on all arms, and sd the
standard deviation of the paired log ratio. Runs beyond the budget miss, and cost the budget.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

SEED_SPREAD, LEVEL = 0.3, np.log(300.0)
MANY = 200_000  # draws that estimate a budget, and a true effect


@dataclass(frozen=True)
class CostModel:
    """Arms whose costs differ by a ratio, and a budget that a share of all runs misses."""

    ratio: float  # candidate ÷ baseline, of costs without a budget
    sd: float  # of the paired log ratio, without a budget
    misses: float  # share of the runs of both arms

    def draw(self, rng, draws, n, candidates=1):
        """Costs and hits (draws, 1 + candidates, n); the baseline comes last."""
        costs = self._costs(rng, draws, n, candidates)
        return np.minimum(costs, self.budget), costs <= self.budget

    def log_ratios(self, rng, draws, n):
        """Paired log ratios (draws, n) and hits (draws, 2, n) of one candidate."""
        costs, hits = self.draw(rng, draws, n)
        return np.log(costs[:, 0] / costs[:, 1]), hits

    @cached_property
    def budget(self):
        """The whole number of updates that the share of runs misses; infinite for none."""
        if not self.misses:
            return np.inf
        costs = self._costs(np.random.default_rng(1), MANY, 1, 1)
        return np.floor(np.quantile(costs, 1 - self.misses))

    @cached_property
    def truth(self):
        """The mean log ratio of restricted costs."""
        return self.log_ratios(np.random.default_rng(2), MANY, 1)[0].mean()

    def _costs(self, rng, draws, n, candidates):
        seeds = SEED_SPREAD * rng.standard_normal((draws, 1, n))
        runs = self.sd / np.sqrt(2) * rng.standard_normal((draws, candidates + 1, n))
        shift = np.append(np.full(candidates, np.log(self.ratio)), 0.0)[:, None]
        return np.ceil(np.exp(LEVEL + seeds + runs + shift))


@lru_cache
def at_margin(margin, sd, misses):
    """The cost model whose restricted geometric-mean ratio is 1 ÷ margin, found by bisection.

    A ratio of `margin` is the same model with the arms swapped, and TOST is symmetric.
    """
    low, high = 0.05, 1.0
    for _ in range(25):
        middle = np.sqrt(low * high)
        below = CostModel(middle, sd, misses).truth < -np.log(margin)
        low, high = (middle, high) if below else (low, middle)
    return CostModel(float(np.sqrt(low * high)), sd, misses)

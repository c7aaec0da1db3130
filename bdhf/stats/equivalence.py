"""Two one-sided tests: are two arms the same within a margin that was fixed before the runs?

    H₀: the mean log ratio is at most -log m, or at least log m        H₁: it lies between

Either half is rejected at level α by a one-sided test, and the larger p is that of the whole
(Schuirmann, 1987). Each one-sided p is the larger of two: Student's t, which holds for normal log
ratios whatever their spread (`ttost_paired` of statsmodels on logs), and the sign-flip test, which
holds for symmetric ones and has the floor 2⁻ⁿ when all pairs are alike.

A pair that misses on both sides ties at the budget, whatever its runs would have cost: its log
ratio is 0, and many of those pass for agreement. It says nothing, and is left out:

    |E[l]| = P(a run hits) |E[l | a run hits]| ≤ |E[l | a run hits]|

so whatever is shown to lie within the margin for the other pairs does so for all of them. So it is
with a pair that met the target on both sides before the first update, at no cost. The share of
tests that call arms at the margin equivalent is in docs/statistics.md, with and without them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bdhf.stats.paired import one_sided
from bdhf.stats.pairs import Pairs

#: Share of runs of either arm that must reach the target before costs can be called equivalent:
#: beyond the budget nobody looked, and arms that agree below it may differ there.
LEAST_HITS = 0.8


@dataclass(frozen=True)
class Tost:
    """Two one-sided tests at one margin; p is 1 where there are no two differences."""

    p_t: float  # Student's t, as ttost_paired of statsmodels
    p_flip: float  # sign flips

    @property
    def p(self) -> float:
        """That of the verdict: both must reject."""
        return max(self.p_t, self.p_flip)


def tost(log_ratios: ArrayLike, margin: float) -> Tost:
    """Test that the mean of paired log ratios lies within ± log(margin).

    Raises ValueError for a margin that is not above 1, or a log ratio that is not finite.

    >>> round(tost([0.02, -0.01, 0.03, 0.0, -0.02, 0.01, 0.02, -0.03], 1.1).p, 4)
    0.0039
    >>> tost([0.4, 0.1, -0.3], 1.1).p > 0.3
    True
    """
    d = np.asarray(log_ratios, dtype=float).ravel()
    if not margin > 1:
        raise ValueError(f"margin must be above 1, not {margin}")
    if not np.isfinite(d).all():
        raise ValueError("log ratios must be finite; leave out the pairs with a missing side")
    if d.size < 2:
        return Tost(1.0, 1.0)
    limit = math.log(margin)
    return Tost(
        max(_t_below(d - limit), _t_below(-d - limit)),
        max(one_sided(d, centre=limit), one_sided(-d, centre=limit)),
    )


def equivalence(effects: NDArray[np.float64], pairs: Pairs, margin: float | None) -> float:
    """Give the p of `tost` over the pairs of which a run hit, and at a cost; NaN without a margin.

    `effects` are log ratios, one for every complete pair, or one for every planned pair with the
    missing ones filled in. NaN too where the pairs have no log ratios.
    """
    if margin is None or not pairs.are_ratios:
        return math.nan
    all_of = pairs if len(effects) == len(pairs) else pairs.complete
    say_something = ~(all_of.both_miss | all_of.both_free)
    return tost(effects[say_something], margin).p


def _t_below(d: NDArray[np.float64]) -> float:
    """One-sided p against a mean of 0 or more."""
    mean, error = float(d.mean()), float(d.std(ddof=1)) / math.sqrt(d.size)
    if error <= 1e-12 * float(np.abs(d).max()):  # no spread: it lies on one side, and that is all
        return 0.0 if mean < 0 else 1.0
    return float(stats.t.cdf(mean / error, d.size - 1))

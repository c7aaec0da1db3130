"""Two one-sided tests: are two arms the same within a margin that was fixed before the runs?

    H₀: the mean log ratio is at most -log m, or at least log m        H₁: it lies between

Either half is rejected at level α by a one-sided test, and the larger p is that of the whole
(Schuirmann, 1987). Each one-sided p is the larger of two: Student's t, which holds for normal log
ratios whatever their spread (`ttost_paired` of statsmodels on logs), and the sign-flip test, which
holds for symmetric ones and has the floor 2⁻ⁿ when all pairs are alike.

A pair that misses on both sides ties at the budget: its log ratio is 0, and many such ties look
like agreement. Such pairs are uninformative and excluded:

    |E[l]| = P(a run hits) |E[l | a run hits]| ≤ |E[l | a run hits]|

so a mean within the margin over the other pairs is within it over all pairs. The same holds for
pairs that met the target on both sides before the first update, at no cost. docs/statistics.md has
the error rate at the margin with and without such pairs.

Evaluations bound each hit, and so each log ratio: it lies in the box [low_i, high_i]. Costs that
are recorded at the same evaluation tie, although they may differ. So p is the largest over the
box. The sign-flip p is monotone in every l_i, and largest at an end. The p of t rises with

    r = Σ d_i² / (Σ d_i)²,   d_i = l_i - log m,   where Σ d_i < 0

a quasi-convex function of d, whose maximum over a box is at one of its corners. Up to 16 pairs all
corners are enumerated. Beyond that r is bounded over the upper hull of the corners' (Σ d, Σ d²): at
least the maximum, and only slightly above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bdhf.stats.inference.paired import EXACT_UP_TO, one_sided, subset_sums
from bdhf.stats.observations.pairs import Pairs

#: Share of runs of each arm that must reach the target before costs can be called equivalent: arms
#: that agree within the budget may differ beyond it.
LEAST_HITS = 0.8


@dataclass(frozen=True)
class Tost:
    """Two one-sided tests at one margin; p is 1 below two differences."""

    p_t: float  # Student's t, as ttost_paired of statsmodels
    p_flip: float  # sign flips

    @property
    def p(self) -> float:
        """The p of the verdict: both must reject."""
        return max(self.p_t, self.p_flip)


def tost(log_ratios: ArrayLike, margin: float) -> Tost:
    """Test that the mean of paired log ratios lies within ± log(margin).

    Raises ValueError for a margin that is not above 1, or a log ratio that is not finite.

    >>> round(tost([0.02, -0.01, 0.03, 0.0, -0.02, 0.01, 0.02, -0.03], 1.1).p, 4)
    0.0039
    >>> tost([0.4, 0.1, -0.3], 1.1).p > 0.3
    True
    """
    return tost_over(log_ratios, log_ratios, margin)


def tost_over(low: ArrayLike, high: ArrayLike, margin: float) -> Tost:
    """Make the same test for log ratios between `low` and `high`, both (n,).

    Each p is the largest over all log ratios in between; 1 where their mean may lie at the margin.

    Raises ValueError for a margin that is not above 1, or an end that is not finite.

    >>> tost_over([-0.01] * 8, [0.01] * 8, 1.1).p == tost([0.01] * 8, 1.1).p
    True
    >>> tost_over([-0.7] * 8, [0.7] * 8, 1.1)
    Tost(p_t=1.0, p_flip=1.0)
    """
    low, high = (np.asarray(end, dtype=float).ravel() for end in (low, high))
    if not margin > 1:
        raise ValueError(f"margin must be above 1, not {margin}")
    if not (np.isfinite(low) & np.isfinite(high)).all():
        raise ValueError("log ratios must be finite; leave out the pairs with a missing side")
    if low.size < 2:
        return Tost(1.0, 1.0)
    limit = math.log(margin)
    return Tost(
        max(_t_below(low - limit, high - limit), _t_below(-high - limit, -low - limit)),
        max(one_sided(high, centre=limit), one_sided(-low, centre=limit)),
    )


def equivalence(pairs: Pairs, margin: float | None) -> float:
    """Give the p of `tost_over` over the complete, informative pairs.

    NaN without a margin, and where the pairs have no log ratios; 1 where a log ratio is unbounded.
    """
    if margin is None or not pairs.are_ratios:
        return math.nan
    return _of_box(*pairs.box(), pairs.complete.uninformative, margin)


def equivalence_over(best: Pairs, worst: Pairs, margin: float | None) -> float:
    """Give that p over all pairs, for any cost of the uncertain runs.

    `best` and `worst` are `Pairs.filled`. Missing runs may be at their best in one pair and at
    their worst in another, which spreads the log ratios further: the box contains every mix.
    """
    if margin is None or not (best.are_ratios and worst.are_ratios):
        return math.nan
    return _of_box(best.box()[0], worst.box()[1], best.uninformative, margin)


def _of_box(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    uninformative: NDArray[np.bool_],
    margin: float,
) -> float:
    """The p over the informative pairs."""
    low, high = low[~uninformative], high[~uninformative]
    if not (np.isfinite(low) & np.isfinite(high)).all():
        return 1.0
    return tost_over(low, high, margin).p


def _t_below(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """Largest one-sided p of Student's t against a mean of 0 or more, of any d in the box."""
    n = low.size
    if not (low < high).any():
        return _t_of(high)
    if high.mean() >= 0:
        return 1.0
    ratio = _largest_at_corners(low, high) if n <= EXACT_UP_TO else _largest_on_hull(low, high)
    spread = n * ratio - 1  # (n - 1) ÷ t²
    return float(stats.t.cdf(-math.sqrt((n - 1) / spread), n - 1)) if spread > 1e-12 else 0.0


def _t_of(d: NDArray[np.float64]) -> float:
    """One-sided p against a mean of 0 or more."""
    mean, error = float(d.mean()), float(d.std(ddof=1)) / math.sqrt(d.size)
    if error <= 1e-12 * float(np.abs(d).max()):  # no spread: the sign decides
        return 0.0 if mean < 0 else 1.0
    return float(stats.t.cdf(mean / error, d.size - 1))


def _largest_at_corners(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """The largest Σ d² / (Σ d)² of the 2ⁿ corners."""
    sums, squares = (
        low.sum() + subset_sums(high - low),
        (low**2).sum() + subset_sums(high**2 - low**2),
    )
    return float((squares / sums**2).max())


def _largest_on_hull(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """The largest y / x² on the upper hull of the points x = Σ d, y = Σ d² of all corners.

    From the corner of all `low` the hull takes the pairs to `high` in the order of their slopes
    Δy / Δx = low + high, the steepest first. On an edge y = a + s x the maximum is at x = -2 a / s,
    where the edge has that point, or else at an end.
    """
    free = low < high
    order = np.argsort(-(low + high)[free], kind="stable")
    x = low.sum() + np.append(0.0, np.cumsum((high - low)[free][order]))
    y = (low**2).sum() + np.append(0.0, np.cumsum((high**2 - low**2)[free][order]))
    slope = np.diff(y) / np.diff(x)
    start = y[:-1] - slope * x[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = -2 * start / slope
    inside = np.clip(np.where(np.isfinite(inside), inside, x[:-1]), x[:-1], x[1:])
    on_edges = (start + slope * inside) / inside**2
    return float(max((y / x**2).max(), on_edges.max()))

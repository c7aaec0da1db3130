"""Other tests and effect sizes of the same pairs: does the verdict depend on the choice of test?

They are reported with the verdict and never affect it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bdhf.stats.inference.paired import EXACT_UP_TO, sign_flip

#: Resamples of a bootstrap.
RESAMPLES = 9_999


def wilcoxon(differences: ArrayLike) -> float:
    """Two-sided p of Wilcoxon's signed ranks, ties ranked and left out after Pratt (1959).

    Exact up to 16 pairs, with ties and zeros too: it is the sign-flip test of the signed ranks.
    Beyond that it is scipy's. 1 where no pair differs.

    >>> wilcoxon([-3.0, -1.0, -2.0, -4.0, -2.5, -3.5])
    0.03125
    """
    d = _snapped(differences)
    if not d.any():
        return 1.0
    if d.size <= EXACT_UP_TO:
        return sign_flip(np.sign(d) * stats.rankdata(np.abs(d))).p
    return float(stats.wilcoxon(d, zero_method="pratt").pvalue)


def sign_test(differences: ArrayLike) -> float:
    """Two-sided p of the sign test; ties are left out, and 1 where no pair differs.

    >>> sign_test([-3.0, -1.0, -2.0, 0.0, -2.0, -3.0])
    0.0625
    """
    d = _snapped(differences)
    untied = int(np.count_nonzero(d))
    return float(stats.binomtest(int((d < 0).sum()), untied).pvalue) if untied else 1.0


def mcnemar_test(candidate_hits: ArrayLike, baseline_hits: ArrayLike) -> float:
    """Two-sided exact p of McNemar's test on paired reached / not reached (McNemar, 1947).

    >>> mcnemar_test([True] * 6, [False] * 6)
    0.03125
    """
    a, b = np.asarray(candidate_hits, dtype=bool), np.asarray(baseline_hits, dtype=bool)
    only_candidate, apart = int((a & ~b).sum()), int((a != b).sum())
    return float(stats.binomtest(only_candidate, apart).pvalue) if apart else 1.0


def win_probability(differences: ArrayLike) -> float:
    """Share of pairs in which the candidate has less, ties half; NaN without pairs.

    >>> win_probability([-1.0, -1.0, 0.0, 2.0])
    0.625
    """
    d = _snapped(differences)
    return float(((d < 0) + 0.5 * (d == 0)).mean()) if d.size else math.nan


def rank_biserial(differences: ArrayLike) -> float:
    """Rank sum of wins minus that of losses ÷ their sum (matched pairs; Kerby, 2014).

    Ties are left out; 0 where no pair differs, NaN without pairs. Above 0 the candidate is better.

    >>> rank_biserial([-3.0, -2.0, 1.0])
    0.6666666666666666
    """
    d = _snapped(differences)
    if not d.size:
        return math.nan
    d = d[d != 0]
    if not d.size:
        return 0.0
    ranks = stats.rankdata(np.abs(d))
    return float((ranks[d < 0].sum() - ranks[d > 0].sum()) / ranks.sum())


def bca(differences: ArrayLike, *, alpha: float = 0.05) -> tuple[float, float]:
    """BCa bootstrap interval of the mean, over pairs (Efron, 1987); NaN where all are alike.

    With 6 to 12 pairs its coverage is below nominal (86 to 91 % for 95 %, and less with misses).
    The order of the differences does not matter.
    """
    d = np.sort(np.asarray(differences, dtype=float).ravel())
    if d.size < 2 or np.ptp(d) <= 1e-12 * np.abs(d).max():
        return math.nan, math.nan
    interval = stats.bootstrap(
        (d,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=1 - alpha,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _snapped(differences: ArrayLike) -> NDArray[np.float64]:
    """The differences in units of the largest, equal where they differ by rounding only.

    log(2/3) and -log(3/2) are not the same number: without this, ranks would depend on the order
    of the arms.
    """
    d = np.asarray(differences, dtype=float).ravel()
    largest = np.abs(d).max(initial=0.0)
    return np.round(d / largest, 12) if largest > 0 else d

"""The tests of one comparison for many draws at once: rows of paired differences (draws, n).

Written apart from `bdhf.stats`, whose functions take one comparison at a time;
`test_simulation.py` holds the two together, row by row.
"""

from functools import lru_cache

import numpy as np
from scipy import stats

from bdhf.stats.inference.equivalence import LEAST_HITS
from bdhf.stats.inference.paired import DRAWS, EXACT_UP_TO, TIE
from bdhf.stats.inference.robustness import RESAMPLES

ROWS = 2**22  # numbers in memory at once


@lru_cache(maxsize=4)
def subsets(n):
    """Subsets of n pairs as columns of zeros and ones (n, k): all but the empty one, or drawn."""
    if n <= EXACT_UP_TO:
        return ((np.arange(1, 2**n) >> np.arange(n)[:, None]) & 1).astype(float)
    drawn = np.random.default_rng(1).random((n, DRAWS)) < 0.5
    return drawn[:, drawn.any(axis=0)].astype(float)


def counts(d):
    """Counts of subset means at most 0 and at least 0, for every row; ties by TIE."""
    chosen = subsets(d.shape[1])
    chosen = chosen / chosen.sum(axis=0)
    step = max(1, ROWS // chosen.shape[1])
    parts = []
    for rows in (d[start : start + step] for start in range(0, len(d), step)):
        means, tie = rows @ chosen, TIE * np.abs(rows).max(axis=1, keepdims=True)
        parts.append(((means <= tie).sum(axis=1), (means >= -tie).sum(axis=1)))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def two_sided(d):
    """Two-sided sign-flip p of every row against a centre of 0."""
    below, above = counts(d)
    return np.minimum(1.0, 2 * (1 + np.minimum(below, above)) / 2 ** min(d.shape[1], EXACT_UP_TO))


def wilcoxon(d):
    """Two-sided p of the signed ranks of every row, after Pratt."""
    d = np.round(d, 12)
    return two_sided(np.sign(d) * stats.rankdata(np.abs(d), axis=1))


def covers(d, centre, alpha):
    """Whether the 1 - alpha interval that inverts the sign-flip test covers the centre."""
    return two_sided(d - centre) > alpha


def tost(d, margin):
    """p_t and p_flip of two one-sided tests at a margin, of every row."""
    limit, total = np.log(margin), 2 ** min(d.shape[1], EXACT_UP_TO)
    p_flip = np.maximum(*((1 + counts(half)[1]) / total for half in (d - limit, -d - limit)))
    return np.maximum(_t_below(d - limit), _t_below(-d - limit)), p_flip


def equivalence(d, hits, margin):
    """p_t and p_flip at a margin, over the pairs of every row of which a run hit; 1 below two.

    `hits` (draws, 2, n) says which runs hit.
    """
    one_hit = hits.any(axis=1)
    p_t, p_flip = np.ones(len(d)), np.ones(len(d))
    for k in range(2, d.shape[1] + 1):
        rows = np.flatnonzero(one_hit.sum(axis=1) == k)
        if rows.size:
            p_t[rows], p_flip[rows] = tost(d[rows][one_hit[rows]].reshape(-1, k), margin)
    return p_t, p_flip


def enough(hits):
    """Whether enough runs of both arms of every row hit for costs to be called equivalent."""
    return hits.mean(axis=2).min(axis=1) >= LEAST_HITS


def bca_covers(d, centre, alpha, resamples=RESAMPLES):
    """Whether the BCa interval of the mean covers the centre; NaN where a row has no interval."""
    covered = np.full(len(d), np.nan)
    spread = np.ptp(d, axis=1) > TIE * np.abs(d).max(axis=1)
    for rows in np.array_split(np.flatnonzero(spread), max(1, spread.sum() // 50)):
        if rows.size:
            ordered = np.sort(d[rows], axis=1)
            interval = stats.bootstrap(
                (ordered,), np.mean, axis=1, n_resamples=resamples, confidence_level=1 - alpha,
                method="BCa", rng=np.random.default_rng(0),
            ).confidence_interval  # fmt: skip
            covered[rows] = (interval.low <= centre) & (centre <= interval.high)
    return covered


def holm(p):
    """Holm's correction of every row (draws, tests)."""
    order, m = np.argsort(p, axis=1), p.shape[1]
    stepped = np.take_along_axis(p, order, axis=1) * np.arange(m, 0, -1)
    corrected = np.minimum(1.0, np.maximum.accumulate(stepped, axis=1))
    return np.take_along_axis(corrected, np.argsort(order, axis=1), axis=1)


def _t_below(d):
    mean, error = d.mean(axis=1), d.std(axis=1, ddof=1) / np.sqrt(d.shape[1])
    flat = error <= TIE * np.abs(d).max(axis=1)
    t = mean / np.where(flat, 1.0, error)
    return np.where(flat, np.where(mean < 0, 0.0, 1.0), stats.t.cdf(t, d.shape[1] - 1))

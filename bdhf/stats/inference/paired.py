"""The sign-flip permutation test of a mean paired difference, and the interval that inverts it.

If neither arm is better, d_i is as likely as -d_i, and the mean T of d is one of 2ⁿ equally likely
values. Flipping the signs of a subset F lowers the sum by twice the sum over F, so for a centre δ

    T_F(δ) ≥ T(δ)   iff   Σ_F (d - δ) ≤ 0   iff   F is empty or mean_F(d) ≤ δ

(Fisher, 1935, section 21; Pitman, 1937). The one-sided p is a count of subset means, and the δ that
the two-sided test does not reject lie between two order statistics of the 2ⁿ - 1 subset means:

    p(δ) = min(1, 2 min(#{mean_F ≤ δ} + 1, #{mean_F ≥ δ} + 1) / 2ⁿ)
    [low, high] = the m-th smallest and m-th largest mean_F,   m = ⌊α 2ⁿ / 2⌋

(Hartigan, 1969). Both use the same list of means, so p ≤ α exactly when 0 is outside the interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Number of differences up to which every subset is enumerated.
EXACT_UP_TO = 16

#: Number of random subsets beyond that. With the identity they are a power of two, as in the exact
#: test: division by it is exact, so rounding cannot make p and the interval disagree.
DRAWS = 2**EXACT_UP_TO - 1

#: Means closer to 0 than this, relative to the largest difference, count as 0.
TIE = 1e-12


@dataclass(frozen=True)
class SignFlip:
    """Mean of n paired differences, its two-sided p against 0, and the interval that inverts it."""

    n: int
    mean: float  # in units of the differences; NaN for n = 0
    p: float
    low: float  # infinite when n is too small for the level
    high: float


def sign_flip(
    differences: ArrayLike, *, alpha: float = 0.05, rng: np.random.Generator | None = None
) -> SignFlip:
    """Test that paired differences are symmetric about 0, with a 1 - alpha interval for the centre.

    Exact up to 16 differences; beyond that over 65,535 random subsets from `rng` (by default a
    fresh `default_rng(0)`, so that equal data give equal numbers). No difference, or too few for
    the level, gives an infinite interval.

    Raises ValueError when a difference is not finite or alpha is not between 0 and 1.

    >>> sign_flip([-3.0, -1.0, -2.0, -4.0, -2.0, -3.0])
    SignFlip(n=6, mean=-2.5, p=0.03125, low=-4.0, high=-1.0)
    """
    d = np.asarray(differences, dtype=float).ravel()
    if not np.isfinite(d).all():
        raise ValueError("differences must be finite; leave out the pairs with a missing side")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    if d.size == 0:
        return SignFlip(n=0, mean=math.nan, p=1.0, low=-math.inf, high=math.inf)
    means, total = _means(d, rng)
    always = total - means.size  # the empty subset leaves T as it is
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    p = min(1.0, 2 * (always + min(below, above)) / total)
    rank = math.floor(alpha * total / 2) - always + 1
    low, high = _order_statistics(means, rank)
    return SignFlip(n=d.size, mean=float(d.mean()), p=p, low=low, high=high)


def one_sided(differences: ArrayLike, centre: float = 0.0) -> float:
    """One-sided sign-flip p of paired differences against a centre at `centre` or above.

    mean_F(d - δ) = mean_F(d) - δ, so every centre reads the same list of subset means.

    >>> one_sided([-3.0, -1.0, -2.0, -4.0]), one_sided([-3.0, -1.0, -2.0, -4.0], centre=-2.0)
    (0.0625, 0.375)
    """
    d = np.asarray(differences, dtype=float).ravel()
    means, total = _means(d)
    above = int((means >= centre - TIE * np.abs(d - centre).max()).sum())
    return (total - means.size + above) / total


def outweighing(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace infinite differences by a value that outweighs the sum of all finite ones.

    Every sum over a subset then has the sign that it has in the limit, and so has the mean.

    >>> outweighing(np.array([-3.0, 2.0, math.inf])).tolist()
    [-3.0, 2.0, 6.0]
    """
    infinite = np.isinf(differences)
    beyond = 1.0 + float(np.abs(differences[~infinite]).sum())
    return np.where(infinite, np.copysign(beyond, differences), differences)


def smallest_p(untied: int) -> float:
    """Give the smallest two-sided p that n differences other than 0 can have: 2 / 2ⁿ.

    A difference of 0 does not help: it doubles both the count and the number of subsets.

    >>> smallest_p(5)
    0.0625
    """
    return float(min(1.0, 2.0 ** (1 - min(untied, EXACT_UP_TO))))


def pairs_needed(level: float) -> int:
    """Count the fewest untied pairs whose smallest exact p is at or below the level.

    >>> pairs_needed(0.05 / 8)
    9
    """
    return max(1, math.ceil(1 - math.log2(level)))


def _means(
    d: NDArray[np.float64], rng: np.random.Generator | None = None
) -> tuple[NDArray[np.float64], int]:
    """Return the means over non-empty subsets, and the number of all subsets.

    Means that differ from 0 by rounding only are 0.
    """
    return _means_of(tuple(d.tolist())) if rng is None else _subset_means(d, rng)


@lru_cache(maxsize=4)
def _means_of(d: tuple[float, ...]) -> tuple[NDArray[np.float64], int]:
    """Cached: an interval, a p and every margin use the same differences."""
    means, total = _subset_means(np.array(d), None)
    means.flags.writeable = False
    return means, total


def _subset_means(
    d: NDArray[np.float64], rng: np.random.Generator | None
) -> tuple[NDArray[np.float64], int]:
    if d.size <= EXACT_UP_TO:
        sums, total = subset_sums(d), 2**d.size
        sizes = _subset_sizes(d.size)
    else:
        flips, sizes = _random_flips(d.size) if rng is None else _draw(d.size, rng)
        sums, total = flips @ d, DRAWS + 1  # plus the identity, which every p counts
    filled = sizes > 0
    means = sums[filled] / sizes[filled]
    means[np.abs(means) <= TIE * np.abs(d).max()] = 0.0
    return means, total


def subset_sums(d: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums over all subsets of (n,) values, the empty one first: (2ⁿ,).

    >>> subset_sums(np.array([1.0, 10.0])).tolist()
    [0.0, 1.0, 10.0, 11.0]
    """
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums, sums + value])
    return sums


@lru_cache(maxsize=EXACT_UP_TO + 1)
def _subset_sizes(n: int) -> NDArray[np.int64]:
    """The size of each of these subsets."""
    return subset_sums(np.ones(n)).astype(np.int64)


@lru_cache(maxsize=4)
def _random_flips(n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The subsets of every test of n differences with the default generator."""
    return _draw(n, np.random.default_rng(0))


def _draw(n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Random subsets as rows of zeros and ones (DRAWS, n), and their sizes."""
    flips = rng.random((n, DRAWS)).T < 0.5
    return flips.astype(float), flips.sum(axis=1)


def _order_statistics(means: NDArray[np.float64], rank: int) -> tuple[float, float]:
    """Return the rank-th smallest and the rank-th largest mean; infinite below rank 1."""
    if rank < 1:
        return -math.inf, math.inf
    ends = np.partition(means, [rank - 1, means.size - rank])
    return float(ends[rank - 1]), float(ends[means.size - rank])

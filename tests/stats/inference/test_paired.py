import itertools
import math

import numpy as np
import pytest
from scipy.stats import permutation_test

from bdhf.stats.inference.paired import DRAWS, EXACT_UP_TO, pairs_needed, sign_flip, smallest_p


def literal_p(d, delta=0.0):
    """The two-sided p by flipping signs one by one; sums within 1e-12 are ties."""
    d = np.asarray(d) - delta
    flips = np.array(list(itertools.product([1.0, -1.0], repeat=d.size))) @ d
    return min(1.0, 2 * min((flips >= flips[0] - 1e-12).mean(), (flips <= flips[0] + 1e-12).mean()))


def dyadic(rng, n):
    """Multiples of 1/8 with many ties and zeros, whose sums are exact."""
    return rng.integers(-8, 9, n) / 8


@pytest.mark.parametrize("n", range(2, 10))
def test_p_equals_scipy(n):
    """The closed form counts what scipy's permutation test enumerates."""
    rng = np.random.default_rng(n)

    for d in (rng.normal(0.4, 1.0, n), rng.lognormal(size=n), dyadic(rng, n) + 0.125):
        reference = permutation_test(
            (d,),
            lambda x, axis: np.mean(x, axis=axis),
            permutation_type="samples",
            n_resamples=np.inf,
            vectorized=True,
        )
        assert sign_flip(d).p == reference.pvalue


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25])
def test_interval_is_the_set_that_is_not_rejected(alpha):
    """Just inside each limit the test of that centre accepts, just outside it rejects."""
    rng = np.random.default_rng(1)

    for _ in range(20):
        d = dyadic(rng, 8)
        test = sign_flip(d, alpha=alpha)
        for inside in (test.low + 1e-9, test.high - 1e-9):
            assert literal_p(d, inside) > alpha
        for outside in (test.low - 1e-9, test.high + 1e-9):
            assert literal_p(d, outside) <= alpha


@pytest.mark.parametrize("n", [1, 2, 5, 6, 8, 12, 16, 17, 24])
def test_p_rejects_exactly_when_the_interval_excludes_zero(n):
    """The interval and p never disagree: exact or drawn, with ties, zeros and rounding errors."""
    rng = np.random.default_rng(n)
    rejected = 0

    for _ in range(60 if n <= EXACT_UP_TO else 12):
        sample = rng.normal(size=n), dyadic(rng, n), np.log(rng.integers(1, 6, n) / 3)
        for d, alpha in itertools.product(sample, (0.05, 0.25)):
            test = sign_flip(d + rng.choice([0.0, 0.5]), alpha=alpha)
            assert (test.p <= alpha) == (test.low > 0 or test.high < 0)
            rejected += test.p <= alpha
    assert rejected > 0 or n < 4


def test_limit_at_zero_counts_as_not_excluded():
    """A subset whose sum is 0 but for a rounding error is a tie, in p and in the interval."""
    d = np.array([0.1, 0.2, -0.3, 0.7, 0.9, 1.1])

    assert sum(d[:3]) != 0
    assert sign_flip(d).p == literal_p(np.array([1, 2, -3, 7, 9, 11])) == 10 / 64
    assert sign_flip(d, alpha=9 / 64).low == 0.0


@pytest.mark.parametrize("n", [7, 20])
def test_swapping_the_arms_mirrors_the_test(n):
    """Differences of the other sign give the same p and the opposite interval."""
    d = np.random.default_rng(n).normal(0.3, 1.0, n)
    straight, mirrored = sign_flip(d), sign_flip(-d)

    assert straight.p == mirrored.p
    assert (straight.low, straight.high) == (-mirrored.high, -mirrored.low)


def test_interval_moves_with_the_data():
    """Adding a constant to every difference shifts the interval by it."""
    d = np.random.default_rng(3).normal(size=9)
    here, there = sign_flip(d), sign_flip(d + 5)

    np.testing.assert_allclose([there.low, there.high], [here.low + 5, here.high + 5])


def test_drawn_p_is_near_the_exact_one():
    """Beyond the exact range p is within four Monte-Carlo standard errors of the full count."""
    d = np.random.default_rng(2).normal(0.35, 1.0, EXACT_UP_TO + 1)
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums, sums + value])
    exact = 2 * (sums <= 0).mean()

    assert 0.001 < exact < 0.5
    assert abs(sign_flip(d).p - exact) < 4 * 2 * math.sqrt(exact / 2 / DRAWS)


def test_drawn_test_repeats():
    """Equal data give equal numbers, and another generator gives other draws."""
    d = np.random.default_rng(2).normal(0.3, 1.0, 20)

    assert sign_flip(d) == sign_flip(d)
    assert sign_flip(d).p != sign_flip(d, rng=np.random.default_rng(9)).p


def test_drawn_p_is_never_zero():
    """The identity counts, so p is at least that of 2¹⁶ flips however many differences agree."""
    assert sign_flip(np.arange(1.0, 31.0)).p == smallest_p(30) == 2 / 2**16


@pytest.mark.parametrize("n", [6, 8, 20])
def test_all_ties_have_p_one_and_no_width(n):
    """Differences that are all 0 say that the centre is 0."""
    test = sign_flip(np.zeros(n))

    assert (test.p, test.low, test.high) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("d", [[], [2.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
def test_too_few_differences_decide_nothing(d):
    """Below the floor of the level the interval is the whole line, and p is above alpha."""
    test = sign_flip(d)

    assert test.n == len(d)
    assert test.p > 0.05
    assert (test.low, test.high) == (-math.inf, math.inf)


@pytest.mark.parametrize("n", range(1, 12))
def test_smallest_p_is_reached_and_zeros_do_not_lower_it(n):
    """Equal signs give 2 / 2ⁿ, and ties beside them leave it there."""
    d = np.arange(1.0, n + 1)

    assert sign_flip(d).p == smallest_p(n)
    assert sign_flip([*d, 0.0, 0.0, 0.0]).p == smallest_p(n)


def test_pairs_needed_is_the_first_that_suffices():
    """One pair fewer could not reach the level, so many can."""
    for tests in range(1, 40):
        n = pairs_needed(0.05 / tests)
        assert smallest_p(n) <= 0.05 / tests < smallest_p(n - 1)


def test_values_that_are_not_finite_are_refused():
    """A missing side must be left out by the caller, not averaged away."""
    with pytest.raises(ValueError, match="finite"):
        sign_flip([1.0, math.nan])
    with pytest.raises(ValueError, match="between 0 and 1"):
        sign_flip([1.0], alpha=0.0)


@pytest.mark.parametrize("budget", [math.inf, 60.0], ids=["uncensored", "censored"])
@pytest.mark.parametrize("n", [6, 8, 11])
def test_false_positive_rate_is_at_most_alpha(n, budget):
    """Two identical arms differ at level alpha in at most alpha of the draws."""
    draws, alpha = 1000, 0.05
    rng = np.random.default_rng(n)
    arms = np.minimum(np.ceil(rng.lognormal(4.0, 0.6, (draws, 2, n))), budget)
    rejected = [sign_flip(d, alpha=alpha).p <= alpha for d in np.log(arms[:, 0] / arms[:, 1])]

    assert np.mean(rejected) <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / draws)
    assert np.any(rejected)


@pytest.mark.parametrize("n", [6, 9])
def test_interval_covers_the_centre(n):
    """The centre of symmetric differences is inside the interval in 1 - alpha of the draws."""
    draws, alpha, centre = 1000, 0.1, -0.3
    samples = np.random.default_rng(n).laplace(centre, 1.0, (draws, n))
    tests = [sign_flip(d, alpha=alpha) for d in samples]
    coverage = np.mean([test.low <= centre <= test.high for test in tests])

    error = 3 * math.sqrt(alpha * (1 - alpha) / draws)
    assert 1 - alpha - error <= coverage <= 1 - alpha + 0.05 + error

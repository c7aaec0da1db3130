"""Every statistic equals that of scipy or statsmodels, or its definition counted by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight
from statsmodels.stats import contingency_tables, descriptivestats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from bdhf.records import Budget
from bdhf.stats.inference import power, robustness
from bdhf.stats.inference.equivalence import tost
from bdhf.stats.inference.paired import one_sided
from bdhf.stats.judge import holm
from bdhf.stats.observations.losses import losses
from bdhf.stats.observations.restriction import Horizon, restrict

SIZES = (2, 5, 6, 9)


def continuous(n):
    """Differences without ties or zeros."""
    return np.random.default_rng(n).normal(0.4, 1.0, n)


def tied(n):
    """Differences with ties and zeros, whose sums are exact."""
    return np.random.default_rng(n).integers(-3, 5, n) / 4.0


DATA = pytest.mark.parametrize("data", [continuous, tied])
EVERY_SIZE = pytest.mark.parametrize("n", SIZES)


def permutations(d, statistic, alternative):
    """Give the p of scipy's test that flips signs, over all of them."""
    return stats.permutation_test(
        (d,), statistic, permutation_type="samples", n_resamples=np.inf, vectorized=True,
        alternative=alternative,
    ).pvalue  # fmt: skip


@DATA
@EVERY_SIZE
@pytest.mark.parametrize("centre", [0.0, 0.5])
def test_one_sided_sign_flips_equal_scipy(n, data, centre):
    """The one-sided p counts what scipy enumerates, around any centre."""
    d = data(n)
    reference = permutations(d - centre, lambda x, axis: np.mean(x, axis=axis), "less")

    assert one_sided(d, centre=centre) == reference


@DATA
@EVERY_SIZE
def test_wilcoxon_is_the_sign_flip_test_of_signed_ranks(n, data):
    """With ties and zeros too, as scipy enumerates the ranks of Pratt."""
    d = data(n)
    ranks = np.sign(d) * stats.rankdata(np.abs(d))
    reference = permutations(ranks, lambda x, axis: np.sum(x, axis=axis), "two-sided")

    assert robustness.wilcoxon(d) == reference


@pytest.mark.parametrize("n", [*SIZES, 12, 16, 20])
def test_wilcoxon_equals_scipy(n):
    """Without ties and zeros it is scipy's exact test, below and beyond the own enumeration."""
    d = continuous(n)

    assert robustness.wilcoxon(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)


@pytest.mark.parametrize("margin", [1.05, 1.25, 2.0])
@pytest.mark.parametrize("n", [2, 6, 12])
def test_equivalence_equals_statsmodels(n, margin):
    """The t half is ttost_paired on logarithms, whatever is larger of both sides."""
    rng = np.random.default_rng(n)
    candidate, baseline = rng.lognormal(4.0, 0.1, (2, n))
    reference, *_ = ttost_paired(candidate, baseline, 1 / margin, margin, transform=np.log)

    assert tost(np.log(candidate / baseline), margin).p_t == pytest.approx(reference, rel=1e-9)


def test_equivalence_flips_signs_on_both_sides():
    """The sign-flip half is the larger of scipy's one-sided p at both limits."""
    d, limit = continuous(8) / 10, np.log(1.1)
    halves = [
        permutations(half, lambda x, axis: np.mean(x, axis=axis), "less")
        for half in (d - limit, -d - limit)
    ]

    assert tost(d, 1.1).p_flip == max(halves)


@EVERY_SIZE
def test_holm_equals_statsmodels(n):
    """NaN is no test and stays where it is; the others are corrected as by statsmodels."""
    p = np.random.default_rng(n).random(n) ** 3
    p[0] = p[-1]
    corrected = multipletests(p, method="holm")[1]

    np.testing.assert_allclose(holm(p), corrected)
    np.testing.assert_allclose(holm([np.nan, *p])[1:], corrected)
    assert np.isnan(holm([np.nan, *p])[0])


@DATA
@EVERY_SIZE
def test_sign_test_equals_statsmodels(n, data):
    """Ties are left out, as statsmodels does."""
    d = data(n)

    assert robustness.sign_test(d) == pytest.approx(descriptivestats.sign_test(d)[1])


@pytest.mark.parametrize("seed", range(4))
def test_mcnemar_equals_statsmodels(seed):
    """On reached or not of both arms, exact."""
    a, b = np.random.default_rng(seed).random((2, 12)) < [[0.8], [0.4]]
    reference = contingency_tables.mcnemar(pd.crosstab(a, b), exact=True).pvalue

    assert robustness.mcnemar_test(a, b) == pytest.approx(reference)


@DATA
@EVERY_SIZE
def test_rank_biserial_is_that_of_the_signed_ranks(n, data):
    """It is (W₋ - W₊) / (W₋ + W₊), with the rank sums of scipy's statistic without zeros."""
    d = data(n)
    untied = d[d != 0]
    total = untied.size * (untied.size + 1) / 2
    wins = stats.wilcoxon(-untied, alternative="greater", method="approx").statistic

    assert robustness.rank_biserial(d) == pytest.approx((2 * wins - total) / total)


@DATA
@EVERY_SIZE
def test_win_probability_counts_pairs(n, data):
    """Pair by pair: 1 for a win, ½ for a tie."""
    d = data(n)
    scores = [1.0 if value < 0 else 0.5 if value == 0 else 0.0 for value in d]

    assert robustness.win_probability(d) == sum(scores) / n


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_bootstrap_equals_scipy(alpha):
    """Resampling both logarithms by seed gives the interval of the mean difference."""
    candidate, baseline = np.random.default_rng(3).integers(-9, 9, (2, 8)) / 8  # logarithms
    order = np.argsort(candidate - baseline)
    candidate, baseline = candidate[order], baseline[order]
    reference = stats.bootstrap(
        (candidate, baseline), lambda a, b: np.mean(a - b), paired=True,
        n_resamples=robustness.RESAMPLES, confidence_level=1 - alpha, rng=np.random.default_rng(0),
        vectorized=False, method="BCa",
    ).confidence_interval  # fmt: skip

    assert robustness.bca(candidate - baseline, alpha=alpha) == pytest.approx(
        (reference.low, reference.high)
    )


@pytest.mark.parametrize(
    ("effect", "sd", "n"), list(itertools.product([0.05, 0.2], [0.2, 0.5], [13, 20, 40]))
)
def test_power_equals_statsmodels(effect, sd, n):
    """Beyond the simulated numbers of pairs it is that of the noncentral t."""
    reference = TTestPower().power(effect / sd, n, 0.05)

    assert power.power(effect, sd, n, 0.05) == pytest.approx(reference, abs=1e-6)


@pytest.mark.parametrize(("effect", "sd"), [(0.1, 0.2), (0.3, 0.25), (0.02, 0.1)])
def test_seeds_to_decide_equal_statsmodels(effect, sd):
    """The first whole number of pairs with 80 % power."""
    reference = TTestPower().solve_power(effect / sd, alpha=0.05, power=0.8)

    assert power.seeds_to_decide(effect, sd, 0.05) == np.ceil(reference)


def test_restricted_means_differ_as_survival_curves_do():
    """The paired difference of restricted means is that of the areas under statsmodels' curves."""
    rng = np.random.default_rng(4)
    tau, areas, means = 50.0, [], []
    for _ in range(2):
        time, reached = rng.integers(1, 80, 30).astype(float), rng.random(30) < 0.8
        time[~reached] = 80.0
        curve = SurvfuncRight(time, reached.astype(int))
        edges = np.concatenate([[0.0], curve.surv_times[curve.surv_times < tau], [tau]])
        steps = np.concatenate([[1.0], curve.surv_prob[curve.surv_times < tau]])
        areas.append(np.sum(np.diff(edges) * steps))
        observed = pd.DataFrame({"status": "done", "reached": reached, "time": time})
        means.append(restrict(observed, Horizon(tau, "budget"))["cost"].mean())

    assert means[0] - means[1] == pytest.approx(areas[0] - areas[1])


@pytest.mark.parametrize("tau", [37, 60])
def test_area_under_the_curve_equals_a_dense_sum(tau):
    """The mean loss up to τ is a Riemann sum of the interpolated curve."""
    rng = np.random.default_rng(5)
    x, loss = np.array([0, 3, 10, 40, 60]), rng.random(5)
    runs = pd.DataFrame({"arm": "hf", "seed": [0], "run_id": "a", "status": "done"})
    curves = pd.DataFrame({"arm": "hf", "seed": 0, "update": x, "val_loss": loss})
    area = losses(runs, curves, "area_under_curve", Budget(updates=tau))["cost"].item()
    middles = (np.arange(600_000) + 0.5) / 600_000 * tau

    assert area == pytest.approx(np.interp(middles, x, loss).mean(), rel=1e-8)

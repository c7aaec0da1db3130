"""The verdict against the tuning budget: closed forms against all possible draws."""

from itertools import product

import numpy as np
import pytest

from bdhf.records import Comparison
from bdhf.stats.result import Verdict
from bdhf.stats.studies.trials import best_so_far, trial_values
from bdhf.stats.studies.tuning_budget import against_the_budget, ahead, expected_best
from tests.report.synthetic_study import ARMS, HORIZON, UPDATES, Searched, synthetic_study

ENTRY = Comparison(name="a against b", candidate="a", baseline="b")
A = [40.0, 90.0, 300.0, 60.0]
B = [50.0, 300.0, 300.0, 60.0]  # ties with a, and with itself
MANY = np.random.default_rng(3).lognormal(4, 0.6, (2, 24))


def draws(n: int, k: int) -> np.ndarray:
    """All n^k ways to draw k of n trials, in order and with replacement (n^k, k)."""
    return np.array(list(product(range(n), repeat=k)))


def quantile(values: np.ndarray, q: float) -> float:
    """The least value that at least the share q of all values do not exceed."""
    return np.quantile(values, q, method="inverted_cdf")


@pytest.mark.parametrize("values", [A, B, [7.0], [5.0, 5.0, 5.0]])
def test_the_expected_best_is_the_mean_over_all_draws(values):
    """Mean and quantiles of the best of k are those over all N^k equally likely draws."""
    best = expected_best(values, alpha=0.2)

    for k in range(1, len(values) + 1):
        bests = np.array(values)[draws(len(values), k)].min(axis=1)
        assert best.mean[k - 1] == pytest.approx(bests.mean(), rel=1e-14)
        assert best.low[k - 1] == quantile(bests, 0.1)
        assert best.high[k - 1] == quantile(bests, 0.9)


@pytest.mark.parametrize(("a", "b"), [(A, B), (B, A), (A[:3], B[:3]), (A, A[::-1])])
def test_who_is_ahead_is_counted_over_all_draws(a, b):
    """Share, geometric mean ratio and its quantiles are those over all draws of the same trials."""
    lead = ahead(ENTRY, a, b, alpha=0.2)

    for k in range(1, len(a) + 1):
        drawn = draws(len(a), k)
        best_a, best_b = (np.array(v)[drawn].min(axis=1) for v in (a, b))
        ratios = best_a / best_b
        wins = (best_a < best_b).mean() + (best_a == best_b).mean() / 2
        assert lead.shares[k - 1] == pytest.approx(wins, abs=1e-12)
        assert lead.ratios[k - 1] == pytest.approx(np.exp(np.log(ratios).mean()), rel=1e-12)
        assert lead.lows[k - 1] == pytest.approx(quantile(ratios, 0.1), rel=1e-12)
        assert lead.highs[k - 1] == pytest.approx(quantile(ratios, 0.9), rel=1e-12)


def test_the_best_of_all_is_met_by_the_best_of_few():
    """Against the best of all N of the other arm, every draw of k is counted, ties half."""
    lead = ahead(ENTRY, A, B)

    for k in range(1, 5):
        for values, other, shares in (
            (A, B, lead.against_all),
            (B, A, lead.baseline_against_all),
        ):
            bests = np.array(values)[draws(4, k)].min(axis=1)
            wins = (bests < min(other)).mean() + (bests == min(other)).mean() / 2
            assert shares[k - 1] == pytest.approx(wins, abs=1e-12)


def test_resampling_agrees_with_the_closed_form():
    """2,000 resamples of paired trials agree with the share within their error."""
    a, b = MANY
    lead = ahead(ENTRY, a, b)
    drawn = np.random.default_rng(0).integers(24, size=(2000, 24))
    best_a, best_b = (np.minimum.accumulate(v[drawn], axis=1) for v in (a, b))

    np.testing.assert_allclose((best_a < best_b).mean(axis=0), lead.shares, atol=0.04)
    np.testing.assert_allclose(best_a.mean(axis=0), expected_best(a).mean, rtol=0.04)


def test_the_expected_best_never_rises_with_trials():
    """One more trial cannot make the best worse, nor its quantiles."""
    best = expected_best(MANY[0])

    for line in (best.mean, best.low, best.high):
        assert (np.diff(line) <= 1e-12).all()
    assert best.mean[0] == pytest.approx(MANY[0].mean())
    assert best.low[-1] == MANY[0].min()


def test_arms_that_are_equal_are_ahead_half_of_the_time():
    """The same values give one half and a ratio of 1, whatever the number of trials."""
    lead = ahead(ENTRY, MANY[0], MANY[0])

    assert lead.shares == (0.5,) * 24
    np.testing.assert_allclose([lead.ratios, lead.lows, lead.highs], 1.0)
    assert lead.leads is Verdict.UNDECIDED
    assert (lead.ahead_of_all, lead.behind_of_all) == (None, None)


def test_candidate_and_baseline_are_mirrors():
    """Exchanged, shares go to 1 - share, ratios to 1 ÷ ratio, and better to worse."""
    a, b = MANY[0] * 0.25, MANY[1]
    lead, mirrored = ahead(ENTRY, a, b), ahead(ENTRY, b, a)

    np.testing.assert_allclose(mirrored.shares, 1 - np.array(lead.shares), atol=1e-11)
    np.testing.assert_allclose(mirrored.ratios, 1 / np.array(lead.ratios), rtol=1e-11)
    assert lead.holds_from(Verdict.BETTER) == mirrored.holds_from(Verdict.WORSE) is not None
    assert lead.ahead_of_all == mirrored.behind_of_all is not None
    assert (lead.leads, mirrored.leads) == (Verdict.BETTER, Verdict.WORSE)


@pytest.mark.parametrize("factor", [2.0**-7, 0.1, 3.7, 1e6])
def test_units_change_no_share(factor):
    """Both arms in other units: the same shares and ratios."""
    a, b = MANY
    lead, scaled = ahead(ENTRY, a, b), ahead(ENTRY, factor * a, factor * b)

    assert (lead.shares, lead.against_all) == (scaled.shares, scaled.against_all)
    np.testing.assert_allclose(scaled.ratios, lead.ratios, rtol=1e-11)


def test_the_order_of_trials_changes_nothing():
    """Both arms' trials in another order, the same for both: the same shares."""
    order = np.random.default_rng(1).permutation(24)
    lead, permuted = ahead(ENTRY, *MANY), ahead(ENTRY, *MANY[:, order])

    assert lead.shares == permuted.shares


def test_a_verdict_holds_from_the_last_time_that_it_began_to():
    """`holds_from` is the smallest k from which every share agrees; a lost lead does not count."""
    lost = ahead(ENTRY, np.full(24, 1.0), np.arange(24) + 0.5)  # the baseline's best comes late

    agree = [share >= 0.95 for share in lost.shares]
    assert agree[0]
    assert not agree[-1]
    assert lost.holds_from(Verdict.BETTER) is None
    assert lost.holds_from(Verdict.EQUIVALENT) is None
    sure = ahead(ENTRY, MANY[0], MANY[1] * 4)
    first = sure.holds_from(Verdict.BETTER)
    assert first > 1
    assert min(sure.shares[first - 1 :]) >= 0.95 > sure.shares[first - 2]


def test_losses_that_are_not_positive_have_no_ratio():
    """A best of 0 or less has shares, and NaN for its ratio."""
    lead = ahead(ENTRY, [-1.0, 2.0], [1.0, 3.0])

    assert lead.shares == (1.0, 1.0)
    assert np.isnan(lead.ratios).all()


def test_a_value_that_is_not_finite_is_refused():
    """NaN is no value of a trial, since a miss costs the horizon; no trials have no best."""
    for values in ([1.0, np.nan], []):
        with pytest.raises(ValueError, match="horizon"):
            expected_best(values)


def test_misses_count_as_the_horizon():
    """Trials that missed, were pruned or failed all count as the horizon."""
    records = synthetic_study()
    arm = next(arm for arm in records.study.arms if arm.label == "full_hf")
    values = trial_values(records, arm, UPDATES)

    assert values[5] == values[7] == values.max() == HORIZON
    raw = records.trials.loc[records.trials["arm"] == "full_hf", UPDATES]
    assert raw.max() == 2 * HORIZON
    hit = (raw <= HORIZON).to_numpy()
    assert values[hit].tolist() == raw[hit].tolist()


def test_a_loss_has_no_horizon_so_misses_are_the_worst():
    """A pruned trial of a tuned loss counts as the largest loss of a trial that was done."""
    records = synthetic_study(objectives=("final_loss",))
    arm = records.study.arms[2]
    done = records.trials[records.trials["status"] == "done"]

    assert trial_values(records, arm, "final_loss")[7] == done["final_loss"].max()


def test_arms_of_a_study_are_compared_at_the_trials_that_both_have():
    """The number of trials is that of the arm with fewer; an arm without any is left out."""
    short = synthetic_study(ARMS | {"adam": Searched(trials=6), "full_hf": Searched(trials=0)})

    (lead,) = against_the_budget(short)

    assert (lead.name, lead.trials) == ("block vs adam", 6)


def test_what_was_not_tuned_is_not_compared():
    """A comparison of seconds is left out where updates were tuned."""
    entry = ENTRY.model_copy(update={"candidate": "block_hf", "baseline": "adam"})
    seconds = entry.model_copy(update={"estimand": "seconds_to_target"})

    assert against_the_budget(synthetic_study(comparisons=[seconds])) == ()
    assert len(against_the_budget(synthetic_study(comparisons=[entry]))) == 1


def test_every_cell_of_a_grid_is_compared():
    """Two comparisons at five batch sizes are ten curves over the trials."""
    assert len(against_the_budget(synthetic_study(sizes=(125, 250, 500, 1000, 2000)))) == 10


def test_the_best_so_far_falls_and_has_the_spread_of_its_trial():
    """The incumbent is the first trial of the least value so far, with its costs over the seeds."""
    records = synthetic_study()
    arm = records.study.arms[2]
    table = best_so_far(records, arm, UPDATES)
    values = records.trials.loc[records.trials["arm"] == arm.label, UPDATES]
    runs = records.seeds[records.seeds["arm"] == arm.label]

    assert table["best"].tolist() == np.fmin.accumulate(values).tolist()
    for row in table.itertuples():
        costs = runs.loc[runs["trial"] == row.incumbent, UPDATES]
        assert values.iloc[int(row.incumbent)] == row.best
        assert (row.low, row.high) == (costs.min(), costs.max())
        assert row.low <= row.best <= row.high


def test_there_is_no_best_before_a_trial_has_a_value():
    """Where the first trial was pruned, the best begins at the second."""
    pruned = Searched(status={0: ("pruned", "worse than the median")})
    records = synthetic_study({"adam": pruned}, comparisons=())

    best = best_so_far(records, records.study.arms[0], UPDATES)["best"]

    assert np.isnan(best[0])
    assert np.isfinite(best[1:]).all()

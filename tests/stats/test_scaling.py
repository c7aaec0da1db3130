"""Batch scaling: a known B_crit is recovered, with and without misses; failures are reported."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import approx_fprime, least_squares
from scipy.stats import norm, t, ttest_1samp

from bdhf.stats.observations.hardware import elsewhere
from bdhf.stats.scaling import scaling as module
from bdhf.stats.scaling.censored import CensoredSample, _loss, fit, fit_at, residuals
from bdhf.stats.scaling.intervals import t_statistic
from bdhf.stats.scaling.means import between, fewest
from bdhf.stats.scaling.scaling import batch_scaling, of_points, points
from bdhf.stats.scaling.scaling import drawn as means_of
from tests.stats import coverage, simulation
from tests.stats.synthetic import synthetic

SIZES = np.array([25.0, 50, 100, 200, 400, 800, 1600])


def drawn(b_crit, *, s_min=20.0, sigma=0.15, seeds=20, share=0.0, sizes=SIZES, rng=0):
    """Runs of a group as input of `of_points`; this share of them misses one budget."""
    noise = np.random.default_rng(rng).normal(0, sigma, (len(sizes), seeds))
    updates = s_min * (1 + b_crit / sizes[:, None]) * np.exp(noise)
    budget = np.quantile(updates, 1 - share)
    size, seed = np.meshgrid(sizes, np.arange(seeds), indexing="ij")
    hit = updates <= budget
    columns = {"size": size, "seed": seed, "cost": np.minimum(updates, budget), "hit": hit}
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()})


def sample_of(runs):
    """The same runs for the fit itself."""
    return CensoredSample(*(runs[name].to_numpy() for name in ("size", "cost", "hit")))


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("b_crit", [60.0, 300.0, 900.0])
def test_a_planted_critical_batch_size_is_recovered(b_crit, share):
    """B_crit and S_min are recovered within 10 %, with 30 % of runs censored or none."""
    runs = drawn(b_crit, share=share, seeds=100)
    fitted = fit(sample_of(runs), limits=sample_of(runs).limits)

    assert (~runs["hit"]).mean() == pytest.approx(share, abs=0.01)
    assert fitted.b_crit == pytest.approx(b_crit, rel=0.1)
    assert fitted.s_min == pytest.approx(20.0, rel=0.1)
    assert fitted.sigma == pytest.approx(0.15, rel=0.1)
    assert fitted.at_limit == 0


def test_taking_misses_for_hits_would_be_wrong():
    """Without the survival terms the estimate of B_crit is off by a third or more."""
    runs = drawn(300.0, share=0.3, seeds=100)
    naive = sample_of(runs.assign(hit=True))

    assert fit(naive, limits=naive.limits).b_crit < 200


def test_without_misses_it_is_least_squares_in_logs():
    """Without censoring the most likely S_min and B_crit minimise the squared log residuals."""
    sample = sample_of(drawn(300.0, seeds=5))

    def residuals(parameters):
        a, b = parameters
        return np.log(sample.updates) - a - np.log1p(np.exp(b) / sample.size)

    squares = least_squares(residuals, [1.0, 1.0], xtol=1e-14, ftol=1e-14, gtol=1e-14)
    fitted = fit(sample, limits=sample.limits)

    assert [fitted.s_min, fitted.b_crit] == pytest.approx(np.exp(squares.x), rel=1e-5)
    assert fitted.sigma == pytest.approx(np.sqrt((squares.fun**2).mean()), rel=1e-5)


def test_the_likelihood_is_that_of_a_censored_log_normal():
    """Densities of hits, survival of misses, and the gradient that goes with them."""
    sample = sample_of(drawn(300.0, share=0.3, seeds=3))
    at = np.array([math.log(15.0), math.log(200.0), math.log(0.3)])
    law = norm(np.log(15.0) + np.log1p(200.0 / sample.size), 0.3)
    logs = np.log(sample.updates)

    loss, gradient = _loss(at, sample)

    assert loss == pytest.approx(-np.where(sample.hit, law.logpdf(logs), law.logsf(logs)).mean())
    numeric = approx_fprime(at, lambda p: _loss(p, sample)[0], 1e-7)
    assert gradient == pytest.approx(numeric, abs=1e-5)


def test_the_likelihood_is_finite_far_from_the_data():
    """Slopes stay finite even where every run is a million deviations off."""
    sample = sample_of(drawn(300.0, share=0.3, seeds=3))

    for a in (-20.0, 20.0):
        loss, gradient = _loss(np.array([a, 0.0, math.log(1e-6)]), sample)
        assert np.isfinite([loss, *gradient]).all()


def test_the_interval_covers_the_planted_size_and_narrows_with_seeds():
    """Few seeds give a wide interval around the true B_crit, many a narrow one."""
    few, many = (of_points(drawn(300.0, seeds=n), "hf", "t", 0.05) for n in (4, 40))

    assert few.low < 300 < few.high
    assert many.low < 300 < many.high
    assert many.high / many.low < few.high / few.low
    assert few.is_bounded
    assert few.is_inside


def test_the_interval_takes_a_seed_as_a_whole():
    """Noise that all runs of a seed share affects S_min only: the interval has no width."""
    runs = drawn(300.0, sigma=0.0)
    runs["cost"] *= np.exp(0.3 * np.sin(runs["seed"]))

    scaling = of_points(runs, "hf", "t", 0.05)

    assert [scaling.low, scaling.b_crit, scaling.high] == pytest.approx([300, 300, 300], rel=1e-3)


def test_what_the_sizes_do_not_show_is_reported():
    """Updates that keep falling give no upper end; updates that never fall give no lower one."""
    falling = of_points(drawn(1e7, s_min=1e-3), "hf", "t", 0.05)
    flat = of_points(drawn(1e-3), "hf", "t", 0.05)

    assert (falling.at_limit, falling.high) == (1, math.inf)
    assert (flat.at_limit, flat.low) == (-1, 0.0)
    assert not falling.is_bounded
    assert not flat.is_bounded


def test_two_seeds_have_no_interval():
    """Two seeds are too few to estimate a spread: there is no interval."""
    scaling = of_points(drawn(300.0, seeds=2), "hf", "t", 0.05)

    assert (scaling.low, scaling.high) == (0.0, math.inf)


@pytest.mark.parametrize("shared", [0.0, 0.4])
def test_without_misses_the_interval_inverts_students_t(shared):
    """At its ends the seeds' slopes in log B, taken one by one, have the p of its level."""
    runs = drawn(300.0, seeds=5)
    runs["cost"] *= np.exp(shared * np.sin(5.0 * runs["seed"]))

    scaling = of_points(runs, "hf", "t", 0.05)

    for end in (scaling.low, scaling.high):
        slope = end / (SIZES + end)
        logs = np.log(runs.pivot(index="seed", columns="size", values="cost").to_numpy())
        said = (logs - np.log1p(end / SIZES)) @ (slope - slope.mean())
        assert ttest_1samp(said, 0).pvalue == pytest.approx(0.05, abs=2e-4)


def test_the_scores_are_slopes_of_the_likelihood():
    """With misses too: they sum to that of the profile, which is 0 at the best fit."""
    sample = sample_of(drawn(300.0, share=0.3, seeds=4))
    best = fit(sample, limits=sample.limits)
    at = fit_at(sample, 200.0)
    parameters = np.array([math.log(at.s_min), math.log(200.0), math.log(at.sigma)])
    slope, (residual, weight) = 200.0 / (sample.size + 200.0), residuals(sample, at)

    gradient = _loss(parameters, sample)[1]
    again = fit_at(sample, best.b_crit)

    assert gradient[[0, 2]] == pytest.approx(0, abs=1e-6)
    score = (residual * (slope - np.average(slope, weights=weight))).mean() / at.sigma
    assert score == pytest.approx(-gradient[1], abs=1e-6)
    assert [again.s_min, again.sigma] == pytest.approx([best.s_min, best.sigma], rel=1e-4)


def test_planted_values_are_held_by_as_many_intervals_as_are_stated():
    """A small sample of `coverage`; the long tests run all draws."""
    rates = coverage.table(20, seeds=(3, 8), shared=(0.3,), misses=(0.0, 0.3))

    assert len(rates) == 4
    assert len(coverage.broken(rates, 20)) == 0
    assert len(coverage.broken(rates.assign(**{"interval covers": 0.8}), 20)) == 4


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_interval_holds_what_the_test_does_not_reject(share):
    """Inside of its ends the seeds' t is below the quantile of its level, beyond them above."""
    runs = drawn(300.0, seeds=4, share=share)
    rows = [np.flatnonzero(runs["seed"] == seed) for seed in range(4)]

    scaling = of_points(runs, "hf", "t", 0.05)

    for end, inwards in ((scaling.low, 1.01), (scaling.high, 1 / 1.01)):
        inside, outside = (
            abs(t_statistic(sample_of(runs), rows, end * step)) for step in (inwards, 1 / inwards)
        )
        assert inside < t.ppf(0.975, 3) < outside


@pytest.mark.long
@pytest.mark.parametrize("shared", coverage.SHARED)
@pytest.mark.parametrize("seeds", coverage.SEEDS)
def test_coverage_holds(seeds, shared):
    """Over 1,200 draws per row the interval covers the true value in 92 to 98 %."""
    rates = coverage.table(400, seeds=(seeds,), shared=(shared,))

    assert len(coverage.broken(rates, 400)) == 0


def test_the_page_has_a_row_for_every_setting():
    """docs/statistics.md has the table of coverage."""
    page = simulation.PAGE.read_text(encoding="utf-8")
    text = page.partition("## The critical batch size")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith(("| 100 | ", "| 5 | "))]

    settings = [tuple(row.strip("| ").split(" | ")[:4]) for row in rows]
    assert settings == [
        *(("100", f"{sd:g}", str(n), f"{100 * share:.0f} %")
          for sd in coverage.SHARED for share in coverage.MISSES for n in coverage.SEEDS),
        *(("5", "0", str(n), "0 %") for n in coverage.SEEDS),
    ]  # fmt: skip


@pytest.mark.parametrize("reached", [SIZES[:1], []])
def test_a_group_that_hits_at_one_size_or_none_has_no_fit(reached):
    """Nor do two batch sizes, whatever their costs."""
    runs = drawn(300.0)

    assert of_points(runs.assign(hit=runs["size"].isin(reached)), "hf", "t", 0.05) is None
    assert of_points(runs[runs["size"] < 100], "hf", "t", 0.05) is None


@pytest.fixture
def grid():
    """Two optimizers at four batch sizes, and one arm without a batch size."""
    sizes = {"100": 40, "200": 25, "400": 16, "800": 12}
    ends = {
        f"{arm} gradient={size}": [base * factor + seed for seed in range(4)]
        for arm, factor in (("hf", 1), ("adam", 3))
        for size, base in sizes.items()
    }
    ends["adam gradient=100"][1:3] = [None, "diverged"]
    ends["adam gradient=200"][0] = "oom"
    values = {arm: {"batch.gradient": arm.split("=")[1]} for arm in ends}
    return dataclasses.replace(synthetic(ends | {"sgd": [5] * 4}, last=200), values=values)


def test_points_are_the_runs_with_a_size_and_an_outcome(grid):
    """Misses and diverged runs are censored at the budget; missing data are no points."""
    table = points(grid)

    assert list(table["group"].drop_duplicates()) == ["adam", "hf"]
    assert len(table) == 31
    missed = table[~table["hit"]]
    assert missed["cost"].tolist() == [200, 200]
    assert missed["arm"].unique().tolist() == ["adam gradient=100"]


def test_seconds_are_those_for_which_a_run_was_watched(grid):
    """Costs are those of the same runs in seconds; a miss or a diverged run costs its follow-up."""
    updates, seconds = points(grid), points(grid, "seconds")
    pace = pd.Series({arm: 0.5 if "hf" in arm else 0.1 for arm in grid.arms})
    slow = grid.curves.assign(seconds=grid.curves["update"] * grid.curves["arm"].map(pace))
    runs = grid.runs.assign(seconds=grid.runs["update"] * grid.runs["arm"].map(pace))

    timed = points(dataclasses.replace(grid, runs=runs, curves=slow), "seconds")

    assert seconds["cost"].tolist() == updates["cost"].tolist()
    assert timed["cost"].tolist() == pytest.approx(
        (updates["cost"] * updates["arm"].map(pace)).tolist()
    )
    assert timed["hit"].tolist() == updates["hit"].tolist()


def test_seconds_of_different_hardware_are_in_no_mean_together(grid):
    """Seconds on the most common hardware are used, and updates of all, in any order of rows."""
    where = grid.runs[["run_id"]].assign(cpu="fast", gpu="", device="cpu")
    other = where["run_id"].isin([f"hf gradient={size}-0" for size in (100, 200, 400, 800)])
    where.loc[other, "cpu"] = "slow"
    mixed = dataclasses.replace(grid, environments=where)
    turned = dataclasses.replace(mixed, runs=grid.runs[::-1], environments=where[::-1])

    counts = means_of(mixed).groupby(["axis", "group"])["runs"].sum()

    assert counts["updates", "hf"] == 16
    assert counts["seconds", "hf"] == 12
    assert counts["seconds", "adam"] == counts["updates", "adam"] == 15
    pd.testing.assert_frame_equal(means_of(turned), means_of(mixed))
    assert batch_scaling(mixed) == batch_scaling(grid)


def test_of_two_kinds_of_hardware_as_common_one_is_kept_in_any_order():
    """A tie is broken by name, and unknown hardware is a separate kind."""
    runs = pd.DataFrame({"run_id": ["a", "b", "c", "d", "e"]})
    where = pd.DataFrame({"run_id": ["a", "b", "c", "d"], "cpu": ["y", "x", "y", "x"]})

    apart = elsewhere(runs, where)

    assert apart.tolist() == [True, False, True, False, True]
    assert elsewhere(runs[::-1], where[::-1]).sort_index().tolist() == apart.tolist()
    assert not elsewhere(runs, pd.DataFrame()).any()


def test_without_a_clock_there_are_means_of_updates_alone(grid):
    """Records without seconds, or without batch sizes, make no rows of them."""
    blind = dataclasses.replace(
        grid, runs=grid.runs.drop(columns="seconds"), curves=grid.curves.drop(columns="seconds")
    )

    assert means_of(blind)["axis"].unique().tolist() == ["updates"]
    assert means_of(grid)["axis"].unique().tolist() == ["updates", "seconds"]
    assert means_of(dataclasses.replace(grid, values={})).empty


def test_a_line_is_a_power_law_between_its_sizes_and_nothing_beyond():
    """Any c B^k is interpolated exactly between the sizes; outside of them there is no height."""
    line = pd.DataFrame({"size": [400.0, 50.0, 100.0]})
    line["cost"] = 7 * line["size"] ** -0.6

    assert between(line, 230.0) == pytest.approx(7 * 230.0**-0.6)
    assert between(line, 50.0) == pytest.approx(7 * 50.0**-0.6)
    assert math.isnan(between(line, 49.0))
    assert math.isnan(between(line, 401.0))


@pytest.mark.parametrize(
    ("costs", "hits", "size", "alternatives", "edge"),
    [
        ((3, 2, 4), (2, 2, 2), 100, (), 0),
        ((1, 2, 4), (2, 2, 2), 50, (), -1),
        ((3, 2, 1), (2, 2, 2), 400, (), 1),
        ((3, 2, 2), (2, 2, 2), 100, (), 0),
        ((2, 2, 4), (1, 2, 0), 100, (50.0,), 0),
    ],
)
def test_the_cheapest_size_is_one_where_every_run_hits(costs, hits, size, alternatives, edge):
    """A lower bound is never the cheapest, but an alternative where the true mean may be lower."""
    line = pd.DataFrame({"size": [50, 100, 400], "cost": costs, "hits": hits, "runs": 2})

    for table in (line, line[::-1]):
        lowest = fewest(table)
        assert (lowest.size, lowest.alternatives, lowest.edge) == (size, alternatives, edge)
    assert fewest(line.assign(hits=0)) is None


def test_every_group_is_fitted(grid):
    """One fit per optimizer, with its sample sizes, independent of the order of the records."""
    adam, hf = batch_scaling(grid)
    turned = dataclasses.replace(
        grid, arms=grid.arms[::-1], runs=grid.runs[::-1], curves=grid.curves[::-1]
    )

    assert (adam.group, adam.points, adam.censored, adam.seeds) == ("adam", 15, 2, 4)
    assert (hf.group, hf.points, hf.censored, hf.sizes) == ("hf", 16, 0, (100, 200, 400, 800))
    assert hf.b_crit == pytest.approx(420, rel=0.3)
    assert batch_scaling(turned) == (adam, hf)


def test_a_size_that_is_no_number_is_no_point(grid):
    """A batch size that is no number, such as `null`, is not on the axis."""
    values = {**grid.values, "hf gradient=100": {"batch.gradient": "null"}}

    table = points(dataclasses.replace(grid, values=values))

    assert "hf gradient=100" not in set(table["arm"])
    assert module.AXIS == "batch.gradient"

"""Ranks over problems: Friedman's test is scipy's, the critical difference that of the tables."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from bdhf.stats.summaries.ranks import critical_difference, friedman, mean_ranks
from tests.stats.synthetic import TARGET, synthetic


def study(problems=6, solvers=("a", "b", "c", "d"), seeds=3, rng=0, **replaced):
    """Solvers on problems of a grid, those later in the alphabet slower by a quarter each."""
    draw = np.random.default_rng(rng)
    ends, values = {}, {}
    for solver in solvers:
        for problem in range(problems):
            base = (problem + 1) * 10 * 1.25 ** solvers.index(solver)
            arm = f"{solver} problem={problem}"
            ends[arm] = [int(base * np.exp(draw.normal(0, 0.15))) for _ in range(seeds)]
            values[arm] = {"problem": str(problem)}
    return dataclasses.replace(synthetic(ends | replaced, last=300), values=values)


@pytest.mark.parametrize(("solvers", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728),
                                            (10, 3.164)])  # fmt: skip
def test_critical_values_are_those_of_the_published_table(solvers, q):
    """Demšar (2006), table 5a, at 5 %, its third decimal cut off or rounded."""
    scale = math.sqrt(solvers * (solvers + 1) / (6 * 14))

    assert critical_difference(solvers, 14, 0.05) / scale == pytest.approx(q, abs=1e-3)


def test_critical_values_at_ten_percent():
    """The same table at 10 %: 2.291 for four solvers."""
    assert critical_difference(4, 20, 0.1) / math.sqrt(1 / 6) == pytest.approx(2.291, abs=6e-4)


def test_the_test_is_scipys_on_mean_log_costs():
    """Per problem the mean over seeds of the log cost; the best solver has rank 1."""
    records = study()
    ranks = mean_ranks(records, TARGET)
    end = records.runs.set_index(["arm", "seed"])["update"].astype(float)
    means = np.array(
        [[np.log([end[f"{s} problem={p}", i] for i in range(3)]).mean() for s in "abcd"]
         for p in range(6)]
    )  # fmt: skip
    expected = stats.friedmanchisquare(*means.T)

    assert ranks.solvers == ("a", "b", "c", "d")
    assert ranks.mean_ranks == pytest.approx(stats.rankdata(means, axis=1).mean(axis=0))
    assert (ranks.statistic, ranks.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert ranks.critical_difference == critical_difference(4, 6, 0.05)
    assert (ranks.problems, ranks.left_out) == (6, 0)


def test_groups_are_stretches_within_the_critical_difference():
    """Solvers are joined exactly when their mean ranks differ by less, no group in another."""
    ranks = mean_ranks(study(problems=12, solvers=tuple("abcdef")), TARGET)
    joined = {(i, j) for first, last in ranks.groups
              for i in range(first, last + 1) for j in range(i + 1, last + 1)}  # fmt: skip
    mean = ranks.mean_ranks
    near = {(i, j) for i in range(6) for j in range(i + 1, 6)
            if mean[j] - mean[i] < ranks.critical_difference}  # fmt: skip

    assert joined == near
    assert 1 < len(ranks.groups) < len(near)


def test_below_five_problems_or_three_solvers_there_is_none():
    """A problem on which a solver has no outcome is left out."""
    idle = {f"b problem={p}": ["oom"] * 3 for p in range(2)}

    assert mean_ranks(study(problems=4), TARGET) is None
    assert mean_ranks(study(solvers=("a", "b")), TARGET) is None
    assert mean_ranks(study(**idle), TARGET) is None
    assert mean_ranks(study(problems=7, **idle), TARGET).left_out == 2


def test_solvers_that_all_miss_tie():
    """No target is reached: equal ranks, and no difference."""
    records = study()
    runs = records.runs.assign(status="diverged")
    ranks = mean_ranks(dataclasses.replace(records, runs=runs), TARGET)

    assert set(ranks.mean_ranks) == {2.5}
    assert (ranks.statistic, ranks.p) == (0.0, 1.0)
    assert ranks.groups == ((0, 3),)


def test_false_alarms_are_rare():
    """Four equal solvers on ten problems: Friedman's test at 5 % rejects about so often."""
    draws = np.random.default_rng(0).normal(size=(2000, 10, 4))

    assert np.mean([friedman(draw)[1] <= 0.05 for draw in draws]) < 0.06


def test_the_order_of_the_records_does_not_matter():
    """Rows and arms in any order give the same ranks."""
    records = study()
    turned = dataclasses.replace(
        records, arms=records.arms[::-1], runs=records.runs[::-1], curves=records.curves[::-1]
    )

    assert mean_ranks(turned, TARGET) == mean_ranks(records, TARGET)

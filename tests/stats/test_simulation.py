import numpy as np
import pytest

from bdhf.records import Comparison
from bdhf.stats.compare import compare
from bdhf.stats.inference.equivalence import tost
from bdhf.stats.inference.paired import sign_flip
from bdhf.stats.inference.power import ENOUGH, power, seeds_to_decide
from bdhf.stats.inference.robustness import bca, wilcoxon
from bdhf.stats.judge import holm
from tests.stats import simulation, vectorised
from tests.stats.simulated_costs import CostModel, at_margin
from tests.stats.synthetic import synthetic

DRAWS = 400


@pytest.mark.parametrize("name", ["null", "margin", "capped", "planned"])
def test_rates_hold(name):
    """With a few hundred draws every rate is within its limits, up to two standard errors."""
    table = simulation.SCENARIOS[name](DRAWS)

    assert simulation.broken(name, table, DRAWS) == []
    assert len(table) >= 6


def test_seeds_that_would_decide_do():
    """The suggested number of pairs has the required power."""
    table = simulation.seeds(1000, cases=((0.7, 0.35), (0.8, 0.25)))

    assert simulation.broken("seeds", table, 1000) == []


def test_a_broken_rate_is_found():
    """A test that rejects too often, or an interval with too little coverage, is a fault."""
    table = simulation.null(50)
    wrong = table.assign(**{"p ≤ 0.05": 0.2, "interval covers": 0.8})

    assert len(simulation.broken("null", wrong, 50)) == 2 * len(table)


def test_ties_at_the_budget_fake_equivalence():
    """Over all pairs the test at the margin rejects too often; without double misses it does not.

    The same holds for arms that differ by half, with a budget that most runs miss.
    """
    margin, capped = simulation.margin(DRAWS), simulation.capped(DRAWS)
    hidden = margin["misses"] == "70 %"

    assert margin.loc[hidden, "p over all pairs"].min() > 0.075
    assert margin.loc[hidden, "p"].max() < 0.01
    assert capped.loc[capped["misses"] == "70 %", "no rule, all pairs"].min() > 0.05


def test_power_is_that_of_the_test_itself():
    """It is 0 below the smallest number of pairs that can decide, and grows with pairs."""
    powers = [power(np.log(0.8), 0.25, n, 0.05) for n in (5, 6, 8, 12, 13, 20)]

    assert powers[0] == 0.0
    assert powers == sorted(powers)
    assert power(np.log(0.8), 0.25, int(seeds_to_decide(np.log(0.8), 0.25, 0.05)), 0.05) == (
        pytest.approx(ENOUGH, abs=0.02)
    )


@pytest.mark.parametrize("misses", [0.0, 0.3, 0.7])
def test_worlds_have_their_stated_parameters(misses):
    """The share of misses, the spread, and the ratio at the margin are the requested ones."""
    cost_model, rng = at_margin(1.1, 0.25, misses), np.random.default_rng(5)
    d, hits = cost_model.log_ratios(rng, 50_000, 2)

    assert hits.mean() == pytest.approx(1 - misses, abs=0.01)
    assert d.mean() == pytest.approx(-np.log(1.1), abs=0.005)
    assert CostModel(1.0, 0.25, 0.0).log_ratios(rng, 50_000, 1)[0].std() == pytest.approx(
        0.25, rel=0.01
    )


@pytest.mark.parametrize("n", [6, 8])
@pytest.mark.parametrize("misses", [0.0, 0.7])
def test_rows_are_tested_as_the_package_tests_one(n, misses):
    """The vectorised tests give the results of `bdhf.stats` for every draw."""
    d, _ = CostModel(0.8, 0.25, misses).log_ratios(np.random.default_rng(n), 60, n)
    flips = [sign_flip(row) for row in d]
    same = [tost(row, 1.1) for row in d]
    centre = -0.13

    np.testing.assert_array_equal(vectorised.two_sided(d), [flip.p for flip in flips])
    np.testing.assert_array_equal(
        vectorised.covers(d, centre, 0.05), [flip.low <= centre <= flip.high for flip in flips]
    )
    np.testing.assert_array_equal(vectorised.wilcoxon(d), [wilcoxon(row) for row in d])
    p_t, p_flip = vectorised.tost(d, 1.1)
    np.testing.assert_allclose(p_t, [result.p_t for result in same], rtol=1e-12)
    np.testing.assert_array_equal(p_flip, [result.p_flip for result in same])
    np.testing.assert_allclose(
        vectorised.holm(d[:20] ** 2 / 10), [holm(row) for row in d[:20] ** 2 / 10]
    )


def test_bootstrap_of_rows_is_that_of_one():
    """With equally many resamples the intervals of rows cover what those of the package cover."""
    d, _ = CostModel(0.8, 0.25, 0.0).log_ratios(np.random.default_rng(0), 30, 6)
    intervals = [bca(row) for row in d]
    held = [low <= np.log(0.8) <= high for low, high in intervals]

    assert vectorised.bca_covers(d, np.log(0.8), 0.05).tolist() == held
    assert np.isnan(vectorised.bca_covers(np.zeros((1, 6)), 0.0, 0.05)).all()
    assert 0 < sum(held) < 30


@pytest.mark.parametrize(("ratio", "sd", "misses"), [(1.0, 0.05, 0.1), (0.8, 0.25, 0.3)])
def test_verdicts_are_those_of_compare(ratio, sd, misses):
    """`compare` gives the p and the verdict of the vectorised tests for simulated runs."""
    cost_model = CostModel(ratio, sd, misses)
    costs, hits = cost_model.draw(np.random.default_rng(3), 25, 8)
    d = np.log(costs[:, 0] / costs[:, 1])
    p, same = vectorised.two_sided(d), np.maximum(*vectorised.equivalence(d, hits, 1.1))
    entry = Comparison(name="x", candidate="block", baseline="full", margin=1.1)
    seen = set()
    for i in range(len(d)):
        ends = [
            [int(c) if hit else None for c, hit in zip(*arm, strict=True)]
            for arm in zip(costs[i], hits[i], strict=True)
        ]
        records = synthetic(
            dict(zip(("block", "full"), ends, strict=True)),
            comparisons=(entry,), last=int(cost_model.budget),
        )  # fmt: skip
        (result,) = compare(records)
        equivalent = same[i] <= 0.05 and vectorised.enough(hits[i : i + 1])[0]
        decided = "better" if d[i].mean() < 0 else "worse"
        seen.add(str(result.verdict))

        assert result.p == p[i]
        assert result.p_equivalence == pytest.approx(same[i], rel=1e-9)
        assert result.verdict == (
            decided if p[i] <= 0.05 else "equivalent" if equivalent else "undecided"
        )
    assert len(seen) > 1


def test_page_has_the_tables(tmp_path, monkeypatch, capsys):
    """The command prints every table and writes it between the marks of the page only."""
    page = tmp_path / "page.md"
    page.write_text("before\n" + "\n".join(simulation.MARKS) + "\nafter\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["simulation", "--draws", "40", "--out", str(page)])
    monkeypatch.setattr(simulation, "SCENARIOS", {"planned": lambda draws: simulation.planned(40)})
    monkeypatch.setattr(simulation.SCENARIOS["planned"], "__doc__", "Power.")
    with pytest.raises(SystemExit) as ended:
        simulation.main()
    text = page.read_text(encoding="utf-8")

    assert ended.value.code == 0
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| 0.25 | 12 | 0.800 |" in text
    assert "| 0.25 | 12 | 0.800 |" in capsys.readouterr().out


def test_the_page_is_that_of_four_thousand_draws():
    """docs/statistics.md has a table of every scenario, with its limits."""
    text = simulation.PAGE.read_text(encoding="utf-8")

    assert "4,000 draws per row" in text
    for name in simulation.SCENARIOS:
        assert f"**{name}**" in text
        assert simulation.limits(name) in text

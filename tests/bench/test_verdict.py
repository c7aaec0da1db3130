"""When a time counts as slower: a suspicion in one pair of processes, a verdict in all."""

import pytest

from bdhf.bench.process import Case
from bdhf.bench.rounds import Ratio
from bdhf.bench.verdict import CaseVerdict, of_ratios, ratio_interval

CASE = Case("suite.time_it", (), 0, "time", "seconds", exact=False, timeout=60.0)


def ratios(*triples):
    """Ratios of pairs of processes."""
    return [Ratio(low, middle, high, 1.0, middle, 9) for low, middle, high in triples]


@pytest.mark.parametrize(
    ("triples", "verdict"),
    [
        ([(1.10, 1.20, 1.30)], CaseVerdict.SLOWER),
        ([(1.01, 1.06, 1.30)], CaseVerdict.SLOWER),
        ([(0.70, 1.06, 1.30)], CaseVerdict.SLOWER),
        ([(1.01, 1.04, 1.30)], CaseVerdict.UNDECIDED),
        ([(0.80, 0.90, 0.99)], CaseVerdict.FASTER),
        ([(0.80, 0.90, 1.30)], CaseVerdict.FASTER),
        ([(0.96, 1.00, 1.04)], CaseVerdict.SAME),
        ([(1.10, 1.20, 1.30), (0.90, 1.06, 1.20)], CaseVerdict.SLOWER),
        ([(1.10, 1.20, 1.30), (0.90, 1.04, 1.20)], CaseVerdict.UNDECIDED),
        ([(1.10, 1.20, 1.30), (0.97, 1.01, 1.04)], CaseVerdict.SAME),
        ([(0.80, 0.90, 0.99), (0.80, 0.94, 1.10)], CaseVerdict.FASTER),
        ([(0.80, 0.90, 0.99), (1.10, 1.20, 1.30)], CaseVerdict.UNDECIDED),
    ],
)
def test_verdicts_of_times(triples, verdict):
    """Every median is beyond the margin, or one interval within it shows no change."""
    assert of_ratios(CASE, ratios(*triples), 1.05).verdict is verdict


def test_the_interval_is_that_of_the_pairs():
    """One pair has the interval of its rounds, several the lowest and the highest median."""
    assert ratio_interval(ratios((1.0, 1.2, 1.5))) == (1.0, 1.2, 1.5)
    assert ratio_interval(ratios((0.5, 1.2, 2.0), (0.5, 1.1, 2.0), (0.5, 1.3, 2.0))) == (
        1.1,
        1.2,
        1.3,
    )


@pytest.mark.parametrize("verdict", CaseVerdict)
def test_what_is_a_regression(verdict):
    """Only slower, more, failing and left out are regressions."""
    bad = {"slower", "more", "fails now", "left out now"}

    assert verdict.is_regression == (str(verdict) in bad)

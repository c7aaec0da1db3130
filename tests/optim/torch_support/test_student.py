"""Quantiles of Student's t, against scipy's."""

import pytest
from scipy import stats

from bdhf.optim.torch_support.student import two_sided_quantile


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.99, 0.999])
def test_quantiles_are_those_of_scipy(level):
    """For whole and half degrees of freedom, few and many."""
    for freedom in (1, 1.5, 2, 2.5, 3.5, 7, 15.5, 199.5, 5000):
        expected = stats.t.ppf(0.5 + level / 2, freedom)

        assert two_sided_quantile(level, freedom) == pytest.approx(expected, rel=1e-5)

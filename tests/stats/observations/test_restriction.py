import numpy as np
import pandas as pd
import pytest

from bdhf.records import Budget
from bdhf.stats.observations.restriction import Horizon, horizon, restrict, smallest_cost

BUDGET = Budget(updates=300)


def observations(*rows):
    """A table of (status, reached, time) like `observe_targets`, without a pace."""
    table = pd.DataFrame(rows, columns=["status", "reached", "time"])
    return table.assign(arm="hf", slowest=np.nan)


def costs(observed, axis):
    """Horizon and restricted costs of the observations."""
    limit = horizon(observed, axis, BUDGET)
    return limit, restrict(observed, limit)["cost"].tolist()


def test_budget_axis_restricts_at_the_budget():
    """Y = min(U, budget), and misses and diverged runs cost the budget."""
    observed = observations(
        ("done", True, 40.0),
        ("done", True, 301.0),
        ("done", False, 300.0),
        ("diverged", False, 7.0),
    )

    assert costs(observed, "updates") == (Horizon(300.0, "budget"), [40.0, 300.0, 300.0, 300.0])


def test_hit_beyond_the_horizon_is_not_a_hit():
    """A target reached after τ is not reached within it."""
    restricted = restrict(observations(("done", True, 301.0)), Horizon(300.0, "budget"))

    assert not restricted["hit"].item()


def test_other_axis_restricts_where_the_first_miss_ended():
    """τ is the smallest follow-up of a miss, later hits cost τ, and diverged runs do not set τ."""
    observed = observations(
        ("done", True, 20.0),
        ("done", True, 45.0),
        ("done", False, 41.0),
        ("done", False, 60.0),
        ("diverged", False, 3.0),
    )
    expected = [20.0, 41.0, 41.0, 41.0, 41.0]

    assert costs(observed, "seconds") == (Horizon(41.0, "first miss"), expected)


def test_other_axis_without_a_miss_restricts_nothing():
    """Without a miss τ is the largest cost observed."""
    observed = observations(("done", True, 20.0), ("done", True, 45.0))

    assert costs(observed, "seconds") == (Horizon(45.0, "largest cost"), [20.0, 45.0])


@pytest.mark.parametrize(("ended", "tau"), [(3.0, 60.0), (90.0, 90.0)])
def test_diverged_runs_alone_restrict_at_the_budget_of_the_slowest_pace(ended, tau):
    """τ is the budget at the slowest pace, and at least the cost of any run."""
    observed = observations(("done", True, 20.0), ("diverged", False, ended)).assign(slowest=60.0)

    assert costs(observed, "seconds") == (Horizon(tau, "slowest pace"), [20.0, tau])


def test_unrecorded_cost_is_missing_data():
    """A run without a cost on the axis has no Y, unless the budget is its cost as a miss."""
    observed = observations(
        ("done", True, 5.0), ("done", True, np.nan), ("done", False, np.nan), ("oom", False, np.nan)
    )

    np.testing.assert_equal(costs(observed, "seconds")[1], [5.0, np.nan, np.nan, np.nan])
    np.testing.assert_equal(costs(observed, "updates")[1], [5.0, np.nan, 300.0, np.nan])


def test_diverged_run_needs_no_recorded_cost():
    """A diverged run costs τ even where its own cost is unknown: from the pace of its arm."""
    observed = observations(("done", True, 5.0), ("diverged", False, np.nan)).assign(slowest=60.0)

    assert costs(observed, "seconds")[1] == [5.0, 60.0]


def test_diverged_run_of_an_arm_without_a_pace_is_missing():
    """The cost of the budget is unknown for it."""
    observed = observations(("done", True, 5.0), ("diverged", False, 2.0))

    np.testing.assert_equal(costs(observed, "seconds")[1], [5.0, np.nan])


def test_nothing_has_run():
    """Without an outcome on an axis that the budget does not name there is no horizon."""
    limit, cost = costs(observations((None, False, np.nan)), "seconds")

    assert np.isnan([limit.value, *cost]).all()


def test_smallest_cost_is_positive_and_of_these_arms():
    """Zero costs and other arms' evaluations do not set the floor of a ratio."""
    restricted = restrict(observations(("done", True, 0.0)), Horizon(300.0, "budget"))
    curves = pd.DataFrame({"arm": ["hf", "hf", "hf", "adam"], "update": [0, 4, 8, 1]})

    assert smallest_cost(restricted, curves, "updates") == 4.0
    assert smallest_cost(restricted, curves[:1], "updates") == 1.0

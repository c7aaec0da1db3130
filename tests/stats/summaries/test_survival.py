import numpy as np
import pandas as pd
import pytest
from statsmodels.duration.survfunc import SurvfuncRight

from bdhf.stats.summaries.survival import kaplan_meier


def observations(time, reached, *, arm="hf", status="done"):
    """A table like that of `observe_targets`."""
    return pd.DataFrame({"arm": arm, "status": status, "reached": reached, "time": time})


def area(curve, end):
    """Area under the steps of one arm up to `end`."""
    edges = np.append(curve["time"], end)
    return float(np.sum(np.diff(edges) * curve["surviving"]))


@pytest.mark.parametrize("seed", range(5))
def test_survival_equals_statsmodels(seed):
    """At every hit the curve and the number at risk are those of SurvfuncRight."""
    rng = np.random.default_rng(seed)
    time, reached = rng.integers(1, 15, 30).astype(float), rng.random(30) < 0.6
    curve = kaplan_meier(observations(time, reached)).set_index("time")
    reference = SurvfuncRight(time, reached.astype(int))

    at_hits = curve.loc[reference.surv_times]
    np.testing.assert_allclose(at_hits["surviving"], reference.surv_prob, atol=1e-12)
    np.testing.assert_array_equal(at_hits["at_risk"], reference.n_risk)
    np.testing.assert_array_equal(at_hits["hits"], reference.n_events)
    assert curve["censored"].sum() == np.sum(~reached)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_area_is_the_restricted_mean(share):
    """With all censoring at the budget, the area up to it is the mean of min(U, budget)."""
    rng = np.random.default_rng(7)
    reached = rng.random(40) >= share
    time = np.where(reached, rng.integers(0, 100, 40), 100.0)
    curve = kaplan_meier(observations(time, reached), end=100.0)

    assert area(curve, 100.0) == pytest.approx(time.mean(), rel=1e-12)


def test_curve_starts_with_everything_at_risk():
    """At time 0 no run has hit, and a hit before training is a step at time 0 as well."""
    curve = kaplan_meier(observations([0.0, 4.0], [True, True]))

    assert curve["time"].tolist() == [0.0, 0.0, 4.0]
    assert curve["surviving"].tolist() == [1.0, 0.5, 0.0]


def test_diverged_run_stays_at_risk():
    """A diverged run never reaches the target: early censoring would hide it."""
    observed = pd.concat(
        [
            observations([1.0], [False], status="diverged"),
            observations([5.0, 9.0], [True, False]),
        ]
    )
    curve = kaplan_meier(observed, end=10.0)

    assert curve["time"].tolist() == [0.0, 5.0, 9.0, 10.0]
    assert curve["surviving"].iloc[-1] == pytest.approx(2 / 3)


def test_nothing_is_shown_after_the_end():
    """Hits and censorings beyond `end` are runs still at risk at `end`."""
    curve = kaplan_meier(observations([5.0, 11.0, 12.0], [True, True, False]), end=10.0)

    assert curve["time"].tolist() == [0.0, 5.0, 10.0]
    assert curve["censored"].iloc[-1] == 2


def test_runs_without_an_outcome_are_left_out():
    """Failed runs are not at risk, and an arm that has only those has no curve."""
    observed = pd.concat(
        [
            observations([5.0, np.nan], [True, False], status=["done", "oom"]),
            observations([np.nan], [False], arm="adam", status="error"),
        ]
    )
    curve = kaplan_meier(observed)

    assert curve["arm"].unique().tolist() == ["hf"]
    assert curve["at_risk"].iloc[0] == 1
    assert kaplan_meier(observed[1:]).empty

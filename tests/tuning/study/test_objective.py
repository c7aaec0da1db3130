"""The value of a trial: hits before misses before failures, and always finite."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdhf.experiments.spec.schema import Safety
from bdhf.records import CURVE_COLUMNS, Budget, Status, Target
from bdhf.tuning.study.objective import HOPELESS, Goal, SeedRun, horizon_of, trial_cost, value

TARGET = Target(metric="val_loss", below=0.1)
UPDATES = Goal("updates_to_target", TARGET, 10.0, Budget(updates=10))
SECONDS = Goal("seconds_to_target", TARGET, 60.0, Budget(updates=10))
MINUTE = Safety(seconds=60)
FINAL = Goal("final_loss", None, math.nan, Budget(updates=10))


def run(losses: list[float], status: Status = Status.DONE, seed: int = 0) -> SeedRun:
    """A run with these validation losses, an update and half a second apart."""
    curve = pd.DataFrame(
        [
            dict.fromkeys(CURVE_COLUMNS, math.nan)
            | {"update": i, "samples": i, "seconds": i / 2, "val_loss": loss}
            for i, loss in enumerate(losses)
        ],
        columns=list(CURVE_COLUMNS),
    )
    return SeedRun(seed, "id", status, "", curve)


HIT = run([1.0, 0.5, 0.05])
NEAR, FAR = run([1.0] + [0.2] * 10), run([1.0] + [0.9] * 10)
DIVERGED = run([1.0, 0.5, math.nan], Status.DIVERGED)


def test_the_value_of_hits_is_the_mean_restricted_cost() -> None:
    """Two updates on one seed, a miss at 10 on the other: 6."""
    assert value(UPDATES, [HIT, HIT]) == 2
    assert value(UPDATES, [HIT, NEAR]) == 6
    assert value(SECONDS, [HIT, HIT]) == 1


def test_misses_are_ordered_by_what_is_left_of_the_way() -> None:
    """A miss costs more than the horizon, and the more, the farther it ended from the target."""
    left = 0.1 / 0.9

    assert value(UPDATES, [NEAR]) == pytest.approx(10 * (1 + left / (1 + left)))
    assert 10 < value(UPDATES, [NEAR]) < value(UPDATES, [FAR]) < 20


@pytest.mark.parametrize("status", [s for s in Status if s not in (Status.DONE, Status.SKIPPED)])
def test_a_failure_is_finite_and_the_worst(status: Status) -> None:
    """A run that diverged, or left no outcome, gives its trial twice the horizon."""
    failed = run([1.0, 0.05], status)

    assert value(UPDATES, [HIT, failed]) == 20
    assert value(UPDATES, [failed]) > value(UPDATES, [FAR])
    assert math.isfinite(value(FINAL, [failed]))


def test_a_failure_before_any_evaluation_is_finite() -> None:
    """A run with an empty curve has a value too."""
    nothing = run([], Status.ERROR)

    assert value(UPDATES, [nothing]) == 20
    assert value(FINAL, [nothing]) == HOPELESS
    assert math.isnan(trial_cost(UPDATES, nothing)[0])


def test_a_miss_is_never_worth_the_horizon() -> None:
    """Also if it reached the target too late, or its metric was never finite."""
    late = Goal("seconds_to_target", UPDATES.target, 1.5, Budget(seconds=1.5))
    seconds = run([1.0, 0.5, 0.1])
    seconds.curve["seconds"] = [0.0, 1.0, 2.0]

    assert not trial_cost(late, seconds)[1]
    assert value(late, [seconds]) > 1.5
    assert value(UPDATES, [run([math.nan, math.nan])]) == 15


def test_losses_are_their_own_value() -> None:
    """The value is the final loss; a divergence has twice the initial loss."""
    assert value(FINAL, [NEAR, FAR]) == pytest.approx(0.55)
    assert value(FINAL, [DIVERGED]) == 2
    assert value(FINAL, [run([1.0, 50.0])]) == 2  # no worse than a divergence


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=11),
        min_size=1,
        max_size=3,
    )
)
def test_any_trial_with_a_hit_precedes_any_without(curves: list[list[float]]) -> None:
    """For any losses, the value is at most the horizon if and only if the trial hits."""
    runs = [run(losses, seed=i) for i, losses in enumerate(curves)]
    hits = any(trial_cost(UPDATES, seed_run)[1] for seed_run in runs)
    worth = value(UPDATES, runs)

    assert np.isfinite(worth)
    assert worth < 20
    assert (worth <= 10) == hits


def test_what_a_miss_costs_is_known_or_refused() -> None:
    """The budget limits its axis, `safety.seconds` the seconds, and nothing limits the others."""
    budget = Budget(updates=300)

    assert horizon_of("updates_to_target", budget, MINUTE) == 300
    assert horizon_of("seconds_to_target", budget, MINUTE) == 60
    assert horizon_of("products_to_target", budget, MINUTE) is None
    assert horizon_of("products_to_target", Budget(products=9), MINUTE) == 9
    assert math.isnan(horizon_of("final_loss", budget, MINUTE) or 0)

"""A target that is reached from below is the mirror image of one that is reached from above."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from bdhf.records import Budget, Target
from bdhf.stats.compare import compare
from bdhf.stats.multiverse import multiverse
from bdhf.stats.observations.targets import observe_targets
from bdhf.stats.summaries.profile import performance_profiles
from bdhf.stats.text.latex import to_latex
from bdhf.stats.text.sentences import sentence
from tests.stats.synthetic import BLOCK_VS_FULL, synthetic

ABOVE = Target(metric="val_accuracy", above=0.9)
BLOCK = [50, 62, 55, None, 64, 58, 49, "timeout"]
FULL = [180, 185, 179, 195, "diverged", 188, 177, 191]


def mirrored(records):
    """The same runs with 1 - loss as metric: a fall to 0.02 is a rise to 0.98."""
    curves = records.curves.assign(val_accuracy=1 - records.curves["val_loss"])
    target = Target(metric="val_accuracy", above=0.98)
    return dataclasses.replace(records, curves=curves, targets=(target,))


def test_results_are_those_of_the_mirror_image():
    """Pairs, costs, p and verdict do not depend on the direction of a metric."""
    down = synthetic({"block": BLOCK, "full": FULL})
    up = mirrored(down)

    (lower,), (higher,) = compare(down), compare(up)

    targets = [r.target for r in (lower, higher)]
    assert targets == ["val_loss ≤ 0.02", "val_accuracy ≥ 0.98"]
    assert repr(dataclasses.replace(higher, target=lower.target)) == repr(lower)
    assert sentence(higher) == sentence(lower).replace(*targets)
    assert r"val\_accuracy $\geq$ 0.98" in to_latex([higher])
    pd.testing.assert_frame_equal(
        performance_profiles(up).drop(columns="target"),
        performance_profiles(down).drop(columns="target"),
    )


def test_nan_and_what_stays_under_never_hit():
    """At the value hits; NaN and values under it do not."""
    runs = pd.DataFrame({"arm": "a", "seed": range(4), "run_id": list("wxyz"), "status": "done",
                         "update": 4})  # fmt: skip
    values = [[0.1, math.nan, math.nan], [0.1, 0.9, 0.2], [0.1, 0.89, 0.89], [0.95, 0.1, 0.1]]
    curves = pd.DataFrame(
        [{"arm": "a", "seed": s, "update": 2 * i, "val_accuracy": v}
         for s, row in enumerate(values) for i, v in enumerate(row)]
    )  # fmt: skip

    seen = observe_targets(runs, curves, ABOVE)

    assert seen["reached"].tolist() == [False, True, False, True]
    assert seen["time"].tolist() == [4, 2, 4, 0]


def test_easier_targets_of_a_multiverse_are_lower():
    """Divided by 1.1, 1.25 and 1.5, as long as no run begins there."""
    records = mirrored(synthetic({"block": BLOCK, "full": FULL}))
    curves = records.curves.assign(val_accuracy=records.curves["val_accuracy"].clip(lower=0.7))
    (universe,) = multiverse(dataclasses.replace(records, curves=curves))

    assert {choice.target for choice in universe.choices} == {
        f"val_accuracy ≥ {0.98 / factor:g}" for factor in (1, 1.1, 1.25)
    }
    label = f"val_accuracy ≥ {0.98 / 1.5:g}: "
    assert any(choice.startswith(label) for choice in universe.left_out)


@pytest.mark.parametrize("sustain", [1, 2])
def test_met_is_the_comparison_itself(sustain):
    """For random values, including those at the limit, both sides agree with numpy."""
    values = np.append(np.random.default_rng(sustain).normal(size=50), [0.25, math.nan, math.inf])
    up = Target(metric="val_x", above=0.25, sustain=sustain)
    down = Target(metric="val_x", below=0.25, sustain=sustain)

    np.testing.assert_array_equal(up.met(values), values >= 0.25)
    np.testing.assert_array_equal(down.met(values), values <= 0.25)
    assert ((up.short_of(values) <= 0) == up.met(values))[~np.isnan(values)].all()


def test_a_budget_still_restricts():
    """A run that never rises costs the budget."""
    entry = BLOCK_VS_FULL.model_copy(update={"margin": 1.1})
    records = synthetic({"block": [None] * 6, "full": [40] * 6}, comparisons=(entry,),
                        budget=Budget(updates=300))  # fmt: skip

    (result,) = compare(mirrored(records))

    assert result.candidate_mean == 300
    assert result.verdict == "worse"

"""The multiverse includes the choice of the spec and all others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from bdhf.records import Comparison, Target
from bdhf.stats.compare import compare
from bdhf.stats.multiverse import CHOSEN_MARGINS, multiverse, universe_table
from bdhf.stats.result import Verdict
from tests.report.synthetic import ENTRIES, Arm, synthetic_records

ARMS = {"adam": Arm(tau=95.0), "full_hf": Arm(tau=30.0), "block_hf": Arm(tau=21.0)}


@pytest.fixture(scope="module")
def records():
    """Three arms, the comparisons in updates and in seconds, no run missing."""
    return synthetic_records(ARMS, every=4, updates=120)


def test_the_choice_of_the_spec_has_the_verdict_of_the_report(records):
    """P after Holm and verdict are those of `compare`, for every comparison and target."""
    two = (*records.targets, Target(metric="val_loss", below=0.05))
    records = dataclasses.replace(records, targets=two)
    declared = [choice for universe in multiverse(records) for choice in universe.declared]

    assert [(c.p_holm, c.verdict) for c in declared] == [
        (result.p_holm, result.verdict) for result in compare(records)
    ]


def test_every_target_axis_and_margin_is_chosen(records):
    """Four targets × three axes × no margin and three margins."""
    first = multiverse(records)[0]

    assert len(first.choices) == 4 * 3 * (1 + len(CHOSEN_MARGINS))
    assert len({(c.target, c.measure, str(c.margin)) for c in first.choices}) == len(first.choices)
    assert first.left_out == ()


def test_choices_that_hold_and_those_that_do_not_are_all(records):
    """Nothing is counted twice or dropped; the sentence counts both."""
    for universe in multiverse(records):
        assert universe.holding + len(universe.others) == len(universe.choices)
        assert f"holds in {universe.holding} of {len(universe.choices)}" in universe.sentence


def test_an_axis_on_which_an_arm_spends_nothing_is_no_choice(records):
    """Adam computes no curvature products: it would win or lose by definition."""
    none = records.curves["products"].where(records.curves["arm"] != "adam", 0.0)
    records = dataclasses.replace(records, curves=records.curves.assign(products=none))
    full, adam, _ = multiverse(records)

    assert {c.measure for c in full.choices} > {"curvature products"}
    assert "curvature products" not in {c.measure for c in adam.choices}
    assert adam.left_out == ("curvature products: adam spends none",)


def test_a_target_at_which_runs_begin_is_no_choice(records):
    """A target that a run meets before its first update compares nothing."""
    target = Target(metric="val_loss", below=0.2)
    universe = multiverse(dataclasses.replace(records, targets=(target,)))[0]

    assert {c.target for c in universe.choices} == {"val_loss ≤ 0.2", "val_loss ≤ 0.22"}
    assert len(universe.left_out) == 2


def test_a_loss_is_measured_in_all_three_ways(records):
    """Final, best and mean loss are the choices of a comparison of losses."""
    entry = Comparison(
        name="losses", candidate="block_hf", baseline="full_hf", estimand="best_loss"
    )
    (universe,) = multiverse(dataclasses.replace(records, comparisons=(entry,)))

    assert len({c.measure for c in universe.choices}) == 3
    assert [c.measure for c in universe.declared] == ["best validation loss"]


def test_cells_of_a_grid_are_choices_of_one_question(records):
    """The comparison of the spec gathers those of all combinations."""
    cells = [
        ENTRIES[0].model_copy(update={"name": "q lr=1"}),
        ENTRIES[1].model_copy(update={"name": "q lr=2"}),
    ]
    records = dataclasses.replace(records, comparisons=tuple(cells), questions=("q",))
    (universe,) = multiverse(records)

    assert {c.name for c in universe.choices} == {"q lr=1", "q lr=2"}
    assert len(universe.declared) == 2


def test_a_margin_alone_turns_undecided_into_equivalent(records):
    """For two arms that hardly differ the verdict depends on the margin, as in the table."""
    rng = np.random.default_rng(3)
    arms = {"full_hf": Arm(tau=21.0, noise=0.0), "block_hf": Arm(tau=21.0, noise=0.0)}
    twins = synthetic_records(arms, every=1, updates=400, comparisons=ENTRIES[:1])
    of_full = twins.curves[twins.curves["arm"] == "full_hf"]
    shaken = of_full.assign(
        arm="block_hf", val_loss=of_full["val_loss"] * np.exp(rng.normal(0, 0.01, len(of_full)))
    )
    ids = twins.runs[twins.runs["arm"] == "block_hf"].set_index("seed")["run_id"]
    shaken["run_id"] = shaken["seed"].map(ids)
    curves = pd.concat([of_full, shaken], ignore_index=True)
    table = universe_table(multiverse(dataclasses.replace(twins, curves=curves)))
    easy = table[(table["target"] == "val_loss ≤ 0.03") & (table["measure"] == "updates")]

    assert easy.loc[easy["margin"].isna(), "verdict"].tolist() == [Verdict.UNDECIDED]
    assert easy.loc[easy["margin"] == 1.25, "verdict"].tolist() == [Verdict.EQUIVALENT]

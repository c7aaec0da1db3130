"""Targets that are met before the first update: flagged, and no evidence of equivalence."""

import dataclasses

import pytest

from bdhf.stats.compare import compare
from bdhf.stats.result import Verdict
from bdhf.stats.text.sentences import sentence
from tests.stats.synthetic import BLOCK_VS_FULL, synthetic

SAME = BLOCK_VS_FULL.model_copy(update={"margin": 1.1})
FULL = [180, 185, 179, 195, 190, 188, 177, 191]
NEAR = [182, 183, 180, 193, 191, 187, 178, 190]


def versus(block, full, entry=SAME, **options):
    """The result of block against full."""
    (result,) = compare(synthetic({"block": block, "full": full}, comparisons=(entry,), **options))
    return result


@pytest.mark.parametrize(
    "estimand", ["updates_to_target", "seconds_to_target", "products_to_target"]
)
def test_arms_that_made_no_update_are_not_equivalent(estimand):
    """Eight of eight pairs tie at cost 0 and are uninformative: no evidence, with a flag."""
    entry = SAME.model_copy(update={"estimand": estimand})
    records = synthetic({"block": [0] * 8, "full": [0] * 8}, comparisons=(entry,))
    curves = records.curves.assign(products=3.0 * records.curves["update"])
    runs = records.runs.assign(products=3.0 * records.runs["update"])
    (result,) = compare(dataclasses.replace(records, curves=curves, runs=runs))

    assert result.verdict is Verdict.UNDECIDED
    assert result.p_equivalence == 1
    assert "8 of 8 runs of block met the target before the first update" in result.flags
    assert "8 of 8 runs of full met the target before the first update" in result.flags
    assert sum("before the first update" in flag for flag in result.flags) == 3
    assert sentence(result).endswith("→ undecided")


def test_free_pairs_do_not_decide_beside_others():
    """Two pairs that agree and six at no cost are only two pairs: too few."""
    result = versus([0] * 6 + [180, 190], [0] * 6 + [181, 189])

    assert result.verdict is Verdict.UNDECIDED
    assert "6 of 8 runs of full met the target before the first update" in result.flags
    assert any(flag.startswith("6 pairs met the target before the first") for flag in result.flags)


def test_pairs_with_a_cost_still_decide():
    """A free pair more or less changes no p of the test of equivalence."""
    with_free = versus([*NEAR, 0], [*FULL, 0])

    assert versus(NEAR, FULL).verdict is Verdict.EQUIVALENT
    assert with_free.verdict is Verdict.EQUIVALENT
    assert with_free.p_equivalence == versus(NEAR, FULL).p_equivalence


def test_a_missing_pair_may_not_bring_agreement_back():
    """With a run missing, free pairs stay out of the bounds as well."""
    result = versus([0] * 7 + ["timeout"], [0] * 8)

    assert result.verdict is Verdict.UNDECIDED
    assert "7 of 7 runs of block met the target before the first update" in result.flags


def test_an_arm_that_is_there_at_once_wins_and_is_reported():
    """Hits of one side at update 0 are a difference, with a flag."""
    result = versus([0] * 8, FULL)

    assert result.verdict is Verdict.BETTER
    assert "8 of 8 runs of block met the target before the first update" in result.flags
    assert not any("of full met the target" in flag for flag in result.flags)


def test_a_run_without_products_is_not_one_without_updates():
    """Adam always has cost 0 in products: no flag on the first update."""
    entry = BLOCK_VS_FULL.model_copy(update={"estimand": "products_to_target"})
    records = synthetic({"block": FULL, "full": NEAR}, comparisons=(entry,))
    curves = records.curves.assign(products=0.0)
    runs = records.runs.assign(products=0.0)
    (result,) = compare(dataclasses.replace(records, curves=curves, runs=runs))

    assert not any("before the first update" in flag for flag in result.flags)


def test_targets_that_take_training_are_not_reported():
    """There is no flag where every run made an update."""
    assert not any("first update" in flag for flag in versus(NEAR, FULL).flags)


def test_no_update_and_one_are_not_equivalent():
    """Both count as 1 in a ratio, which is a convention and no evidence."""
    result = versus([0] * 8, [1] * 8)

    assert (result.wins, result.untied) == (8, 0)
    assert result.verdict is Verdict.UNDECIDED

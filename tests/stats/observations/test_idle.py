"""An arm that spends nothing on an axis has no cost there, and no verdict."""

import dataclasses

import pytest

from bdhf.stats.caveats.flags import too_few_pairs
from bdhf.stats.compare import compare
from bdhf.stats.multiverse import multiverse
from bdhf.stats.text.sentences import sentence
from tests.stats.synthetic import BLOCK_VS_FULL, synthetic

PRODUCTS = BLOCK_VS_FULL.model_copy(update={"estimand": "products_to_target", "margin": 1.1})


def of_products(pace, **ends):
    """Records whose arms make so many products an update."""
    records = synthetic(ends, comparisons=(PRODUCTS,))
    curves = records.curves.assign(
        products=records.curves["update"] * records.curves["arm"].map(pace)
    )
    runs = records.runs.assign(products=records.runs["update"] * records.runs["arm"].map(pace))
    return dataclasses.replace(records, runs=runs, curves=curves)


@pytest.mark.parametrize("idle", ["block", "full", "both"])
def test_an_arm_without_products_has_no_verdict_in_products(idle):
    """The other arm spends infinitely more by definition, so there is no verdict."""
    pace = {arm: 0 if idle in (arm, "both") else 20 for arm in ("block", "full")}
    records = of_products(pace, block=list(range(30, 38)), full=[60] * 8)

    (result,) = compare(records)

    arms = [arm for arm, products in pace.items() if not products]
    why = ", ".join(f"8 that spent no curvature products in {arm}" for arm in arms)
    assert (str(result.verdict), result.pairs, result.p) == ("undecided", 0, 1.0)
    assert result.flags[0] == f"8 of 8 pairs are missing: {why}"
    assert result.flags[1:2] == too_few_pairs(0, 0, 0.05, 1)
    assert "0 of 8 pairs" in sentence(result)
    (universe,) = multiverse(records)
    assert [str(choice.verdict) for choice in universe.declared] == ["undecided"]


def test_an_arm_with_products_keeps_its_verdict():
    """A single run with cost 0 is a valid cost."""
    ends = {"block": [0, *range(30, 37)], "full": [60] * 8}

    (result,) = compare(of_products({"block": 20, "full": 20}, **ends))

    assert (str(result.verdict), result.pairs) == ("better", 8)


def test_arms_that_begin_at_the_target_are_not_equivalent():
    """Without an update nothing was compared."""
    entry = BLOCK_VS_FULL.model_copy(update={"margin": 1.1})

    (result,) = compare(synthetic({"block": [0] * 6, "full": [0] * 6}, comparisons=(entry,)))

    assert (str(result.verdict), result.pairs) == ("undecided", 6)


def test_an_arm_that_diverged_at_once_has_missed():
    """It spent nothing because it failed, not because of its method."""
    records = synthetic({"block": [40] * 8, "full": ["diverged"] * 8})
    curves = records.curves[(records.curves["arm"] == "block") | (records.curves["update"] == 0)]

    (result,) = compare(dataclasses.replace(records, curves=curves))

    assert (str(result.verdict), result.pairs) == ("better", 8)

import dataclasses

import pytest

from bdhf.records import Comparison
from bdhf.stats.compare import compare
from bdhf.stats.text.sentences import sentence
from tests.stats.synthetic import BLOCK_VS_FULL, synthetic, with_losses

FAST = [50, 62, 55, 71, 64, 58, 49, 66]
SLOW = [80, 85, 79, 95, 90, 88, 77, 91]


def said(block, full, **options):
    """The sentence on block against full."""
    return sentence(compare(synthetic({"block": block, "full": full}, **options))[0])


def test_verdict_names_arms_unit_target_interval_and_p():
    """A reader who sees only the sentence can check it."""
    assert said(FAST, SLOW) == (
        "block needed 0.69× the updates of full to reach val_loss ≤ 0.02 "
        "(95 % interval 0.65 to 0.73; p = 0.008; 8 of 8 pairs) → better"
    )


def test_correction_and_misses_are_named():
    """With several tests it has the corrected p, and the cost of a miss."""
    entries = [Comparison(name=str(i), candidate="block", baseline="full") for i in range(3)]
    text = said([*FAST[:7], None], SLOW, comparisons=entries)

    assert "after Holm over 3 tests" in text
    assert text.endswith(
        "8 of 8 pairs; a miss counts as 300) → undecided; about 102 seeds would decide"
    )


def test_small_p_keeps_its_side_of_a_small_alpha():
    """A p above alpha is not hidden behind "< 0.001"."""
    result = compare(synthetic({"block": FAST, "full": SLOW}))[0]

    assert "p = 0.001;" in sentence(dataclasses.replace(result, p=0.0007, alpha=0.0005))


def test_an_infinite_interval_is_reported_in_words():
    """Too few pairs for the level give no interval, not one from 0 to inf."""
    text = said(FAST[:4], SLOW[:4])

    assert "(no 95 % interval, too few pairs; p = 0.125; 4 of 4 pairs) → undecided" in text
    assert "inf" not in text


def test_arms_that_never_reach_the_target():
    """Without a hit there is no ratio."""
    assert said([None] * 6, ["diverged"] * 6) == (
        "block and full never reached val_loss ≤ 0.02 within 300 updates (6 of 6 pairs) → undecided"
    )


def test_all_ties():
    """Equal costs on every seed are reported as ties."""
    assert said(FAST, FAST) == (
        "block and full needed the same number of updates to reach val_loss ≤ 0.02 "
        "(8 of 8 pairs, all tied) → undecided"
    )


@pytest.mark.parametrize(
    ("seeds", "pairs"), [(1, "0 of 1 pair has an outcome"), (3, "0 of 3 pairs have an outcome")]
)
def test_no_pairs(seeds, pairs):
    """Without pairs there is still a sentence."""
    assert said(["planned"] * seeds, [40] * seeds) == (
        f"block and full cannot be compared on val_loss ≤ 0.02: {pairs} on both sides → undecided"
    )


def test_verdict_that_missing_pairs_overturn_says_why():
    """A small p with `undecided` is explained."""
    assert said([*FAST, "timeout"], [*SLOW, 80]).endswith(
        "8 of 9 pairs) → undecided: the missing pairs could change the verdict"
    )


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ({"ratio_high": 0.9983}, "to 0.998;"),
        ({"ratio_low": 1.0000004, "ratio_high": 2.0}, "1.0000004 to 2.00"),
        ({"ratio": 0.00412}, "needed 0.0041×"),
        ({"p": 0.04999}, "p = 0.04999;"),
        ({"p": 0.05003}, "p = 0.05003;"),
        ({"p": 0.05}, "p = 0.050;"),
        ({"p": 0.00003}, "p < 0.001;"),
        ({"p": 1.0}, "p = 1;"),
    ],
)
def test_rounding_does_not_cross_the_mark(numbers, text):
    """A p above alpha is not printed as alpha, nor a limit below 1 as 1."""
    result = compare(synthetic({"block": FAST, "full": SLOW}))[0]

    assert text in sentence(dataclasses.replace(result, **numbers))


@pytest.mark.parametrize(
    ("block", "full", "verdict"),
    [
        (FAST, SLOW, "better"),
        (SLOW, FAST, "worse"),
        (SLOW, SLOW[:4] + [v + 1 for v in SLOW[4:]], "equivalent within 1.1× (p = 0.004)"),
        (FAST, FAST[::-1], "undecided; about 41 seeds would decide"),
    ],
)
def test_each_verdict_ends_its_sentence(block, full, verdict):
    """The verdict comes last, with its p or the number of seeds."""
    entry = BLOCK_VS_FULL.model_copy(update={"margin": 1.1})

    assert said(block, full, comparisons=(entry,)).endswith(f"8 of 8 pairs) → {verdict}")


def test_equivalent_ties_are_reported_as_ties():
    """Where all pairs tie there is no ratio, but a margin."""
    entry = BLOCK_VS_FULL.model_copy(update={"margin": 1.1})

    assert said(FAST, FAST, comparisons=(entry,)) == (
        "block and full needed the same number of updates to reach val_loss ≤ 0.02 "
        "(8 of 8 pairs, all tied) → equivalent within 1.1× (p = 0.004)"
    )


@pytest.mark.parametrize(
    ("estimand", "text"),
    [
        ("final_loss", "block had a final validation loss 0.50× that of full (95 % interval"),
        ("area_under_curve", "block had a mean validation loss over the budget 0.75× that of full"),
    ],
)
def test_losses_are_named(estimand, text):
    """A loss has no target and no unit, only its name."""
    records = with_losses({"block": [[2.0, 1.0]] * 6, "full": [[2.0, 2.0]] * 6}, estimand=estimand)

    assert sentence(compare(records)[0]).startswith(text)


def test_losses_without_a_ratio_are_differences():
    """Losses at or below 0 are compared by their difference."""
    records = with_losses({"block": [[2.0, 1.0]] * 3, "full": [[2.0, -1.0]] * 3})

    assert sentence(compare(records)[0]) == (
        "block was 2 above full in final validation loss "
        "(no 95 % interval, too few pairs; p = 0.250; 3 of 3 pairs) → undecided"
    )


def test_missing_pairs_are_a_reason_only_where_they_decide():
    """Ties without enough hits are undecided in any case, even if a pair is missing."""
    entry = BLOCK_VS_FULL.model_copy(update={"margin": 1.1})
    some = [*FAST[:6], *[None] * 3]
    text = said([*some, "oom"], [*some, 50], comparisons=(entry,))

    assert text.endswith("9 of 10 pairs, all tied; a miss counts as 300) → undecided")

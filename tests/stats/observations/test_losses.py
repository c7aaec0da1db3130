"""Comparisons of losses, which need no target."""

import math

import numpy as np
import pytest

from bdhf.records import Budget
from bdhf.stats.caveats.overturned import OF_MISSING_PAIRS
from bdhf.stats.compare import compare
from bdhf.stats.observations.losses import losses
from bdhf.stats.result import Verdict
from bdhf.stats.text.sentences import sentence
from tests.stats.synthetic import with_losses

ESTIMANDS = ("final_loss", "best_loss", "area_under_curve")
LOW = [[2.0, 0.4 + i / 100, 0.5 + i / 50] for i in range(8)]
HIGH = [[2.0, 0.8 + i / 100, 0.9 + i / 50] for i in range(8)]


def only(curves, **options):
    """The result of block against full."""
    (result,) = compare(with_losses(curves, **options))
    return result


def loss_of(curve, estimand, *, status="done", budget=2):
    """The loss of one run."""
    records = with_losses({"block": [curve]}, diverged=[("block", 0)] * (status == "diverged"))
    return losses(records.runs, records.curves, estimand, Budget(updates=budget))["cost"].item()


@pytest.mark.parametrize(
    ("estimand", "value"), [("final_loss", 0.5), ("best_loss", 0.4), ("area_under_curve", 0.825)]
)
def test_each_loss_is_what_it_says(estimand, value):
    """The last, the least, and the mean over the budget."""
    assert loss_of([2.0, 0.4, 0.5], estimand) == pytest.approx(value)


@pytest.mark.parametrize("estimand", ESTIMANDS)
def test_a_diverged_run_has_the_loss_that_it_began_with(estimand):
    """Its loss is that at update 0, for all three estimands; the pair is not missing."""
    assert loss_of([2.0, 0.1, math.nan], estimand, status="diverged") == 2.0

    result = only({"block": LOW, "full": HIGH}, estimand=estimand, diverged=[("block", 3)])
    assert (result.pairs, result.candidate_hits) == (8, 7)
    assert "1 of 8 runs of block diverged: it counts as its initial loss" in result.flags


@pytest.mark.parametrize("estimand", ESTIMANDS)
def test_lower_losses_are_better(estimand):
    """The same test of log ratios as for costs, with no horizon and no target."""
    result = only({"block": LOW, "full": HIGH}, estimand=estimand)

    assert result.verdict is Verdict.BETTER
    assert (result.p, result.target, result.p_mcnemar) == (2 / 2**8, "", 1.0)
    assert math.isnan(result.horizon)
    assert result.flags == ()
    assert "× that of full" in sentence(result)


def test_losses_can_be_equivalent():
    """Within the margin on every seed, and no run diverged."""
    near = [
        [2.0, 0.4, value * 1.001**sign]
        for (_, _, value), sign in zip(LOW, [1, -1] * 4, strict=True)
    ]

    assert only({"block": near, "full": LOW}, margin=1.1).verdict is Verdict.EQUIVALENT
    assert only({"block": near, "full": LOW}).verdict is Verdict.UNDECIDED


def test_arms_that_both_diverge_are_not_equivalent():
    """Runs that diverge on both sides tie at their initial loss, and are uninformative."""
    both = [(arm, seed) for arm in ("block", "full") for seed in range(6)]
    result = only({"block": LOW, "full": LOW}, margin=1.1, diverged=both)

    assert result.verdict is Verdict.UNDECIDED
    assert (result.ties, result.p_equivalence) == (8, 0.25)
    assert any(flag.startswith("6 pairs diverged on both sides") for flag in result.flags)


def test_equivalent_losses_take_runs_that_did_not_diverge():
    """With three of eight runs diverged in one arm a flag has the counts."""
    lost = [("block", seed) for seed in range(3)]
    same = [[0.5, 0.5, 0.5]] * 8
    result = only({"block": same, "full": same}, margin=1.1, diverged=lost)

    assert result.p_equivalence <= 0.05
    assert result.verdict is Verdict.UNDECIDED
    assert (
        "Not called equivalent: at least 80 % of the runs of both arms must not diverge "
        "(block: 5 of 8)"
    ) in result.flags


@pytest.mark.parametrize("shift", [-0.5, -3.0])
def test_losses_that_are_not_positive_use_differences(shift):
    """Without ratios the differences are tested, and a flag reports that no margin applies."""
    block, full = ([[x + shift for x in run] for run in arm] for arm in (LOW, HIGH))
    result = only({"block": block, "full": full}, margin=1.1)

    assert result.verdict is Verdict.BETTER
    assert result.difference == pytest.approx(-0.4)
    assert np.isnan([result.ratio, result.ratio_low, result.p_equivalence]).all()
    assert result.flags == (
        "The margin needs ratios, but not every final validation loss is positive",
    )
    assert sentence(result).startswith(
        "block was 0.4 below full in final validation loss (95 % interval -0.4 to -0.4; p = 0.008"
    )


def test_runs_that_stop_at_their_target_are_flagged():
    """A loss at the target is not that of a run up to the budget."""
    result = only({"block": LOW, "full": [run[:2] for run in HIGH[:3]] + HIGH[3:]})

    assert result.pairs == 8
    assert any(
        flag.startswith("3 of 8 runs of full ended before the budget of 2 updates")
        and "stop: at_budget" in flag
        for flag in result.flags
    )


def test_area_is_averaged_up_to_the_first_end():
    """Every run was observed up to there; later parts of longer runs do not count."""
    result = only({"block": [[2.0, 1.0, 9.0]] * 6, "full": [[4.0, 2.0]] * 6},
                  estimand="area_under_curve")  # fmt: skip

    assert (result.candidate_mean, result.baseline_mean) == (1.5, 3.0)


def test_one_loss_that_is_not_a_number():
    """In the middle it is skipped; at the end there is no final loss: the pair is missing."""
    assert loss_of([2.0, math.nan, 0.5], "final_loss") == 0.5
    assert loss_of([2.0, math.nan, 0.5], "area_under_curve") == pytest.approx(1.25)
    assert loss_of([2.0, 0.4, math.nan], "best_loss") == 0.4
    assert math.isnan(loss_of([2.0, 0.4, math.nan], "final_loss"))

    result = only({"block": [[2.0, 0.4, math.nan], *LOW[1:]], "full": HIGH})
    assert result.pairs == 7
    assert (
        "1 of 8 pairs is missing: 1 without recorded final validation loss in block" in result.flags
    )


def test_missing_run_may_have_diverged():
    """At worst it has the initial loss: a verdict that depends on that is undecided."""
    high = [[9.0, *run[1:]] for run in HIGH]
    lost, early = (only({"block": [*LOW[:6], "oom"], "full": full[:7]}) for full in (high, HIGH))
    near = [[run[2] + 0.001, run[1], run[2]] for run in HIGH]
    stands = only({"block": [*[[0.6, 0.4, 0.3]] * 9, "oom"], "full": [*near, *near[:2]]})

    assert lost.p_holm == early.p_holm <= 0.05
    assert lost.verdict is Verdict.UNDECIDED
    assert any(flag.startswith(f"{OF_MISSING_PAIRS}: better ") for flag in lost.flags)
    assert stands.verdict is Verdict.BETTER


def test_unknown_loss_is_an_error():
    """An unknown loss is refused, and the error lists the known ones."""
    with pytest.raises(ValueError, match=r"'last_loss'.*final_loss"):
        loss_of([2.0, 1.0], "last_loss")

"""Estimates of the duration of runs."""

import math

import pytest
import torch

from bdhf.experiments.duration import Duration, Mark, of_finished, time_updates, whole_run
from bdhf.experiments.spec.schema import Safety
from bdhf.records import Budget
from tests.experiments.specs import cell, cells

SETUP, UPDATE, EVALUATION = 3.0, 0.5, 0.25


def marks(products=6.0):
    """The marks of three updates: the first includes set-up; each takes six products."""
    rows = []
    for update in range(4):
        seconds = UPDATE * update + (1.0 if update else 0.0)  # the first update takes longer
        clock = SETUP - 1.0 + seconds + EVALUATION * (update + 1)
        row = {
            "update": update,
            "seconds": seconds,
            "products": products * update,
            "epoch": update / 10,
        }
        rows.append(Mark(clock, row))
    return rows


@pytest.mark.parametrize(
    ("budget", "updates"),
    [
        (Budget(updates=100), 100),
        (Budget(epochs=3), 30),
        (Budget(products=600), 100),
        (Budget(seconds=20), 40),
    ],
)
def test_a_run_is_setup_updates_and_evaluations(budget, updates):
    """Times of the probe, counts by the budget and the interval."""
    run = cell("adam", budget=budget, evaluate_every=10).run

    expected = SETUP + updates * UPDATE + (updates / 10 + 1) * EVALUATION

    assert whole_run(run, marks()) == pytest.approx(expected)


def test_what_spends_no_budget_never_ends():
    """Adam uses no products, so it never reaches a budget of products."""
    run = cell("adam", budget=Budget(products=10)).run

    assert math.isinf(whole_run(run, marks(products=0.0)))


def test_a_probe_is_made_of_real_updates_and_leaves_nothing():
    """It gives a positive time that grows with the budget."""
    run = cell("full_hf").run
    long = run.model_copy(update={"budget": Budget(updates=6000)})

    short, whole = (time_updates(r, device="cpu", safety=Safety(seconds=60)) for r in (run, long))

    assert isinstance(short, Duration)
    assert isinstance(whole, Duration)
    assert 0 < short.seconds < whole.seconds
    assert short.source == "probe"


def test_a_probe_that_fails_says_why(monkeypatch):
    """An arm that cannot run has a reason instead of a time."""
    run = cell("adam").run

    def refuse(*_, **__):
        raise RuntimeError("planted in a step")

    monkeypatch.setattr(torch.optim.Adam, "step", refuse)

    reason = time_updates(run, device="cpu", safety=Safety(seconds=60))

    assert str(reason).startswith("error: RuntimeError: planted in a step")


def test_finished_runs_tell_the_mean_of_their_arm():
    """An arm without ended runs is not in the result."""
    plan = cells()
    adam = [cell.run_id for cell in plan if cell.arm == "adam"]

    durations = of_finished(plan, {adam[0]: 2.0, adam[1]: 4.0})

    assert durations == {"adam": Duration(3.0, "finished runs")}

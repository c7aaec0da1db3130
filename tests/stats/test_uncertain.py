"""Verdicts with slow, lost and diverged runs and coarse evaluation, against independent rules."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from bdhf.records import Budget, Comparison, Records, load
from bdhf.stats.compare import compare
from tests.stats import simulation, uncertain
from tests.stats.fabricated import fabricate
from tests.stats.simulated_costs import CostModel
from tests.stats.synthetic import TARGET

ENTRY = Comparison(
    name="seconds", candidate="block", baseline="full", estimand="seconds_to_target", margin=1.1
)
CELLS = [
    ("slow", 0.1), ("slow", 0.3), ("lost", 0.1), ("lost", 0.3), ("diverged", 0.1),
    ("diverged", 0.3), ("coarse", 25), ("coarse", 200), ("costlier", 1), ("costlier", 5),
]  # fmt: skip
COST_MODELS = (CostModel(1.0, 0.02, 0.0), CostModel(1 / 1.1, 0.1, 0.0), CostModel(0.75, 0.15, 0.0))


def records_of(drawn: uncertain.Drawn) -> Records:
    """The tables of these runs."""
    runs, curves = [], []
    for side, arm in enumerate(("block", "full")):
        for seed in range(drawn.updates.shape[1]):
            status, pace = drawn.status[side, seed], drawn.pace[side, seed]
            hit = drawn.recorded[side, seed] if status == "done" else np.inf
            end = min(hit, drawn.ended[side, seed])
            cell = {"arm": arm, "seed": seed, "run_id": f"{arm}-{seed}"}
            began = status != "planned"
            runs.append(cell | {
                "status": status if began else None, "reason": "",
                "update": end if began else np.nan, "seconds": end * pace if began else np.nan,
            })  # fmt: skip
            updates = sorted({0, min(drawn.every, end), max(end - drawn.every, 0), end})
            curves += [
                cell | {"update": update, "seconds": update * pace,
                        "val_loss": 0.01 if update == hit else 1.0}
                for update in updates if began
            ]  # fmt: skip
    return Records(
        name="uncertain", spec_text="", arms=("block", "full"), targets=(TARGET,),
        comparisons=(ENTRY,), budget=Budget(updates=uncertain.LIMIT), alpha=uncertain.ALPHA,
        evaluate_every=drawn.every, runs=pd.DataFrame(runs), curves=pd.DataFrame(curves),
        environments=pd.DataFrame(), safety_seconds=uncertain.SAFETY,
    )  # fmt: skip


def drawn(kind, share, draws):
    """Ablations of 8 pairs for every ground truth."""
    rng = np.random.default_rng(7)
    return [
        uncertain.draw(rng, cost_model, 8, kind, share)
        for cost_model in COST_MODELS
        for _ in range(draws)
    ]


def check(cells, draws):
    """Compare both implementations, and return the verdicts."""
    verdicts = []
    for kind, share in cells:
        for ablation in drawn(kind, share, draws):
            (result,) = compare(records_of(ablation))
            assert str(result.verdict) == uncertain.verdict(ablation), (kind, share, ablation)
            verdicts.append(str(result.verdict))
    return verdicts


@pytest.mark.parametrize("kind", [*uncertain.KINDS, *uncertain.EVALUATED])
def test_verdicts_are_those_of_independent_rules(kind):
    """Both implementations agree on a few ablations, whose verdicts differ."""
    cells = [(name, share) for name, share in CELLS if name == kind]

    assert len(set(check(cells, 4))) >= 2


@pytest.mark.long
def test_many_verdicts_are_those_of_independent_rules():
    """The same for hundreds of ablations with every verdict."""
    assert set(check(CELLS, 60)) >= {"better", "equivalent", "undecided"}


@pytest.mark.parametrize(("kind", "share"), CELLS[1::2])
def test_folders_give_the_verdicts_of_the_tables(kind, share, tmp_path):
    """A folder gives the verdicts of its tables, including the limits of wall-clock."""
    for number, ablation in enumerate(drawn(kind, share, 1)):
        records = records_of(ablation)
        loaded = load(fabricate(tmp_path / str(number), records))
        (from_folder,), (from_tables,) = compare(loaded), compare(records)

        assert loaded.safety_seconds == uncertain.SAFETY
        assert from_folder == dataclasses.replace(from_tables, flags=from_folder.flags)
        assert str(from_folder.verdict) == uncertain.verdict(ablation)


@pytest.mark.parametrize("name", ["uncertain_runs", "coarse", "costlier"])
def test_rates_hold_of_runs_without_a_plain_outcome(name, monkeypatch):
    """With a few draws every rate is within its limits, up to two standard errors."""
    monkeypatch.setattr(simulation, "UNCERTAIN_DRAWS", 30)
    table = simulation.SCENARIOS[name](30)

    assert simulation.broken(name, table, 30) == []
    assert len(table) >= 9


def test_coarse_costs_as_recorded_would_pass_for_equivalent():
    """With recorded costs alone the rate is far beyond 5 %."""
    rates = uncertain.rates(100, 8, "coarse", 200)

    assert rates["at the margin: equivalent as recorded"] > 0.12
    assert rates["at the margin: equivalent"] <= 0.05


def test_seconds_as_recorded_would_pass_for_different_where_an_arm_makes_costlier_updates():
    """Identical arms in seconds, with evaluation intervals that cost one arm ten times as much."""
    rates = uncertain.rates(100, 12, "costlier", 25)

    assert rates["identical: better or worse as recorded"] > 0.5
    assert rates["identical: better or worse"] <= 0.05

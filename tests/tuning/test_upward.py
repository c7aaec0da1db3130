"""Trials whose target is reached from below: values, prunings and trials of their mirror image."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.run.execute import Outcome
from bdhf.records import Budget, Status, Target
from bdhf.tuning.outcome.collect import stored_trials
from bdhf.tuning.storage.storage import StudyLocation
from bdhf.tuning.study.objective import Goal, SeedRun, final, value
from bdhf.tuning.study.study import Study
from tests.tuning.synthetic import study, synthetic_run, worked

DOWN, UP = Target(metric="val_loss", below=0.1), Target(metric="val_gain", above=-0.1)
CURVES = {
    "hit": [1.0, 0.5, 0.05],
    "near": [1.0] + [0.2] * 10,
    "far": [1.0] + [0.9] * 10,
    "worse than at the start": [1.0] + [1.4] * 10,
    "dipped": [0.05, 0.3, 0.3],
    "never finite": [math.nan, math.nan],
}


def run(losses: list[float]) -> SeedRun:
    """A run with these losses, and with the gains that mirror them."""
    rows = [{"update": i, "val_loss": x, "val_gain": -x} for i, x in enumerate(losses)]
    return SeedRun(0, "id", Status.DONE, "", pd.DataFrame(rows))


@pytest.mark.parametrize("name", CURVES)
def test_the_value_of_a_trial_is_that_of_its_mirror_image(name: str) -> None:
    """Hits, and misses by their remaining fraction of the way."""
    down, up = (Goal("updates_to_target", t, 10.0, Budget(updates=10)) for t in (DOWN, UP))

    assert value(up, [run(CURVES[name])]) == value(down, [run(CURVES[name])])
    assert str(final(up, run(CURVES[name]))) == str(-final(down, run(CURVES[name])))


def test_what_rises_fastest_is_not_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial of the mirrored study has the value and the status of the original one."""

    def gain(row: dict[str, float]) -> dict[str, float]:
        return {**row, "val_gain": -row["val_loss"]}

    def gaining(spec: RunSpec, **options: Any) -> Outcome:
        observe = options.pop("observe")
        falling = spec.model_copy(update={"stop_at": (DOWN,)})
        outcome = synthetic_run(falling, observe=lambda row: observe(gain(row)), **options)
        curve = outcome.curve.assign(val_gain=-outcome.curve["val_loss"])
        return dataclasses.replace(outcome, curve=curve)

    pruner = "pruner: {type: median, startup: 2, warmup: 10}\ntrials: 12"
    ends = {}
    for name, target in (("down", DOWN), ("up", UP)):
        monkeypatch.setattr("bdhf.experiments.engines.execution.execute", gaining)
        (tmp_path / name).mkdir()
        of = towards(target, study(tmp_path / name, ("trials: 8", pruner)))
        of = dataclasses.replace(of, cells=of.cells[:1])
        worked(of, tmp_path / name / "out")
        (adam,) = stored_trials(of, StudyLocation(tmp_path / name / "out").open())
        ends[name] = [(trial.user_attrs["status"], trial.values) for trial in adam.trials]

    assert ends["up"] == ends["down"]
    assert {status for status, _ in ends["up"]} >= {"pruned", "done"}


def towards(target: Target, of: Study) -> Study:
    """The study with another target."""
    cells = tuple(
        dataclasses.replace(
            cell, goals=tuple(dataclasses.replace(goal, target=target) for goal in cell.goals)
        )
        for cell in of.cells
    )
    return dataclasses.replace(of, cells=cells)

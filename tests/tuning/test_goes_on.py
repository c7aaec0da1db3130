"""A trial whose run goes on from a checkpoint is the trial that nobody disturbed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from bdhf.tuning.collect import find
from bdhf.tuning.storage import Place
from bdhf.tuning.study import Study
from tests.tuning.made_up import study, worked

#: Real runs, saved at every evaluation, of one arm whose trials a median gives up.
OFTEN = (
    ("seeds: {count: 6}", "seeds: {count: 6}\nsafety: {checkpoint_every: 1}"),
    ("budget: {updates: 40}", "budget: {updates: 12}\nevaluate: {every_updates: 2}"),
    ("  hf: {type: block_hf", "  other: {type: block_hf"),
    ("candidate: hf", "candidate: other"),
    ("trials: 8", "trials: 2\npruner: {type: median, startup: 1}"),
    ("{type: tpe, startup: 3}", "random"),
    ("below: 0.1", "below: 0.01"),
    ("{count: 2, base: 100}", "{count: 1, base: 100}"),
)


def of_adam(home: Path) -> Study:
    """A study of one arm."""
    space = (
        "  hf:\n    lr: {linear: [0.1, 1.0]}\n    damping:\n      choice:\n"
        "        constant: {value: {log: [1.0e-4, 1.0]}}\n"
        "        levenberg_marquardt: {initial: {log: [1.0e-3, 10]}}\n"
        "    solver.max_iters: {log: [2, 20], whole: true}\n"
    )
    return study(home, *OFTEN, (space, ""))


def reported(of: Study, folder: Path) -> list[object]:
    """What the pruner knew of every finished trial, and what became of it."""
    (adam,) = find(of, Place(folder).open())
    return [(t.state, t.params, t.values, t.intermediate_values) for t in adam.trials]


def interrupting(at: int) -> Callable[[optuna.Trial, float, int], None]:
    """`Trial.report` that is interrupted at an update of the first trial, once."""
    report, times = optuna.Trial.report, list[int]()

    def reporting(trial: optuna.Trial, value: float, step: int) -> None:
        if trial.number == 0 and step == at and not times:
            times.append(step)
            raise KeyboardInterrupt
        report(trial, value, step)

    return reporting


def test_the_pruner_knows_all_of_a_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows from before the interruption are told again, so that the same is given up."""
    monkeypatch.setattr("bdhf.experiments.engines.worker.CHECKPOINT_SECONDS", 0.0)
    of = of_adam(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "report", interrupting(8))
        with pytest.raises(KeyboardInterrupt):
            worked(of, tmp_path / "disturbed")
    saved = list((tmp_path / "disturbed" / "checkpoints").glob("*.pt"))
    worked(of, tmp_path / "disturbed")
    worked(of, tmp_path / "alone")

    assert len(saved) == 1
    assert reported(of, tmp_path / "disturbed") == reported(of, tmp_path / "alone")

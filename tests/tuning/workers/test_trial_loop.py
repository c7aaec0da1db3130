"""Making trials: exactly N an arm, the same ones each time; none fails the study."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.run.execute import Outcome
from bdhf.records import Status, StudyRecords, load_study
from bdhf.report.study.render import build_study
from bdhf.tuning.outcome.collect import collect_study, stored_trials
from bdhf.tuning.sampling.samplers import PRUNERS, SAMPLERS
from bdhf.tuning.storage.storage import StudyLocation
from bdhf.tuning.study.study import Study
from tests.messages import naming
from tests.tuning.small import placed
from tests.tuning.synthetic import (
    BEST_LR,
    HIGHEST_LR,
    by_trial,
    quick,
    study,
    synthetic_run,
    worked,
)

__all__ = ["quick"]
pytestmark = pytest.mark.usefixtures("quick")


def tuned(of: Study, folder: Path) -> StudyRecords:
    """The records of a finished study."""
    worked(of, folder)
    collect_study(of, StudyLocation(folder))
    return load_study(folder)


def test_every_arm_has_exactly_its_trials(tmp_path: Path) -> None:
    """N trials an arm finish, the first with the spec's own settings, all on the same seeds."""
    records = tuned(study(tmp_path), tmp_path / "out")

    assert records.trials.groupby("arm").size().to_dict() == {"adam": 8, "hf": 8}
    assert by_trial(records.trials, "adam", "trial") == [(i,) for i in range(8)]
    first = records.trials[records.trials["is_default"]]
    assert first["trial"].tolist() == [0, 0]
    assert set(records.seeds["seed"]) == {100, 101}
    assert records.study.is_whole


def test_work_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    """A finished study that is run again has the same trials."""
    of = study(tmp_path)
    before = tuned(of, tmp_path / "out").trials

    after = tuned(of, tmp_path / "out").trials

    assert before.equals(after)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_gives_the_same_trials(tmp_path: Path, sampler: str) -> None:
    """Two studies of one seed agree in every setting and value; another seed gives others."""
    change = ("{type: tpe, startup: 3}", f"{{type: {sampler}, startup: 3}}")
    of = study(tmp_path, change)
    first, second = (tuned(of, tmp_path / name) for name in ("a", "b"))
    other = tuned(study(tmp_path, (change[0], f"{{type: {sampler}, seed: 1}}")), tmp_path / "c")

    values = [by_trial(r.parameters, "hf", "trial", "parameter", "value", "text")
              for r in (first, second, other)]  # fmt: skip
    assert values[0] == values[1]
    assert values[0] != values[2]
    assert by_trial(first.trials, "hf", "updates_to_target") == by_trial(
        second.trials, "hf", "updates_to_target"
    )


@pytest.mark.parametrize(
    "sampler",
    ["cmaes", *(pytest.param(n, marks=pytest.mark.long) for n in SAMPLERS if n != "cmaes")],
)
def test_an_interrupted_trial_is_to_its_sampler_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    """The state that CMA-ES stored with a trial is there when the trial is made again."""
    startup = ("{type: tpe, startup: 3}", f"{{type: {sampler}, startup: 2}}")
    of, runs = study(tmp_path, startup, ("updates: 40", "updates: 6")), list[RunSpec]()

    def interrupted(spec: RunSpec, **how: Any) -> Outcome:
        runs.append(spec)
        if len(runs) in (14, 21):
            raise KeyboardInterrupt
        return synthetic_run(spec, **how)

    with monkeypatch.context() as patch:
        patch.setattr("bdhf.experiments.engines.execution.execute", interrupted)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                worked(of, tmp_path / "disturbed")
        worked(of, tmp_path / "disturbed")
    worked(of, tmp_path / "alone")

    disturbed, alone = (
        placed(of, StudyLocation(tmp_path / n).open()) for n in ("disturbed", "alone")
    )
    assert disturbed == alone


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_two_trials_are_drawn_alike(tmp_path: Path, sampler: str) -> None:
    """Although each trial has a new sampler, no draw is repeated."""
    change = ("{type: tpe, startup: 3}", f"{{type: {sampler}, startup: 3}}")
    records = tuned(study(tmp_path, change), tmp_path / "out")
    settings: dict[int, tuple[object, ...]] = {}
    for trial, *rest in by_trial(records.parameters, "hf", "trial", "parameter", "value", "text"):
        settings[trial] = (*settings.get(trial, ()), *rest)

    assert len(set(settings.values())) == len(settings) == 8


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("pruner", PRUNERS)
def test_samplers_and_pruners_go_together(tmp_path: Path, sampler: str, pruner: str) -> None:
    """Every sampler with every pruner finishes exactly N trials, pruned ones among them."""
    more = f"pruner: {{type: {pruner}, startup: 2}}\ntrials: 8" if pruner == "median" else (
        f"pruner: {pruner}\ntrials: 8"
    )  # fmt: skip
    change = ("{type: tpe, startup: 3}", f"{{type: {sampler}, startup: 3}}")
    records = tuned(study(tmp_path, change, ("trials: 8", more)), tmp_path / "out")
    pruned = records.trials[records.trials["status"] == "pruned"]

    assert records.trials.groupby("arm").size().to_dict() == {"adam": 8, "hf": 8}
    assert (len(pruned) > 0) == (pruner != "none")
    assert pruned["updates_to_target"].isna().all()
    assert pruned["reason"].str.contains(r" update \d+$").all()


def test_what_falls_behind_is_given_up_though_the_others_are_there(tmp_path: Path) -> None:
    """Trials that reached the target keep its value, so a slow one is compared with them."""
    pruner = "pruner: {type: median, startup: 2, warmup: 20}\ntrials: 16"
    records = tuned(study(tmp_path, ("trials: 8", pruner)), tmp_path / "out")
    adam = records.trials[records.trials["arm"] == "adam"]
    missed = adam[(adam["updates_to_target"] > 40) & (adam["status"] == "done")]

    assert (adam["status"] == "pruned").sum() >= 4
    assert (missed["trial"] < 4).all()  # before there were enough trials to compare with


def test_a_diverged_trial_has_a_finite_worst_value_and_its_reason(tmp_path: Path) -> None:
    """Its value is twice the horizon; status and reason are stored, and the study continues."""
    wide = ("{log: [1.0e-4, 1.0]}}", "{log: [1.0e-4, 1000.0]}}")
    records = tuned(study(tmp_path, wide), tmp_path / "out")
    diverged = records.trials[records.trials["status"] == "diverged"]

    assert len(diverged)
    assert (diverged["updates_to_target"] == 80).all()
    assert (diverged["reason"] == "val_loss is nan at update 1").all()
    rates = records.parameters.query("arm == 'adam'").set_index("trial")["value"]
    assert (rates[diverged["trial"]] > HIGHEST_LR).all()


def test_an_error_of_a_run_is_a_trial_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that raised, or ran out of memory, gives its trial the worst value."""

    def failing(spec: RunSpec, **how: Any) -> Outcome:
        outcome = synthetic_run(spec, **how)
        if spec.optimizer["type"] == "block_hf" and spec.seed == 101:
            return Outcome(Status.OOM, "out of memory", outcome.curve)
        return outcome

    monkeypatch.setattr("bdhf.experiments.engines.execution.execute", failing)
    records = tuned(study(tmp_path), tmp_path / "out")
    hf = records.trials[records.trials["arm"] == "hf"]

    assert (hf["status"] == "oom").all()
    assert (hf["updates_to_target"] == 80).all()
    assert records.study.is_whole


def test_a_study_in_which_all_miss_says_so_and_what_to_change(tmp_path: Path) -> None:
    """Every trial missed: a sentence for each arm names target, trials and budget."""
    of = study(tmp_path, ("updates: 40", "updates: 3"))
    records = tuned(of, tmp_path / "out")

    said = build_study(tmp_path / "out").sentences

    facts = naming("8 trials", "val_loss ≤ 0.1", "3 updates")
    assert len([line for line in said if re.search(facts, line)]) == 2
    assert (records.trials["updates_to_target"] >= 3).all()


def test_the_best_trial_is_near_the_optimum(tmp_path: Path) -> None:
    """With 40 trials TPE comes within a factor of 2.5 of the best learning rate."""
    of = study(tmp_path, ("trials: 8", "trials: 40"))
    records = tuned(of, tmp_path / "out")
    adam = next(arm for arm in records.study.arms if arm.name == "adam")
    best = by_trial(records.trials, "adam", "updates_to_target")[adam.best or 0][0]

    assert 0.4 < adam.settings["lr"] / BEST_LR < 2.5
    assert best == records.trials.query("arm == 'adam'")["updates_to_target"].min()
    assert adam.least is not None
    assert adam.largest is not None
    assert adam.least <= best <= adam.largest


def test_several_objectives_have_a_front(tmp_path: Path) -> None:
    """No trial dominates one on the front; the first objective selects the best trial."""
    both = "objective: [updates_to_target, seconds_to_target]\ntrials: 8"
    records = tuned(study(tmp_path, ("trials: 8", both)), tmp_path / "out")
    adam = records.trials[records.trials["arm"] == "adam"]
    front = adam[adam["on_front"]]
    names = ["updates_to_target", "seconds_to_target"]

    assert len(front)
    for _, row in front.iterrows():
        beaten = (adam[names] <= row[names]).all(axis=1) & (adam[names] < row[names]).any(axis=1)
        assert not beaten.any()
    best = records.study.arms[0].best
    assert adam.set_index("trial").loc[best, "updates_to_target"] == adam["updates_to_target"].min()


def test_what_a_trial_leaves_is_in_its_attributes(tmp_path: Path) -> None:
    """Optuna holds wall-clock, products, curve, status and settings, for other readers."""
    of = study(tmp_path)
    worked(of, tmp_path / "out")
    adam = stored_trials(of, StudyLocation(tmp_path / "out").open())[0]
    trial = adam.trials[0]

    assert trial.user_attrs["status"] == "done"
    assert trial.user_attrs["settings"] == {"lr": 0.003}
    assert trial.user_attrs["updates"] == sum(
        s["updates_to_target"] for s in trial.user_attrs["seeds"]
    )
    assert trial.user_attrs["products"] == 3 * trial.user_attrs["updates"]
    assert trial.user_attrs["wall_seconds"] >= 0
    assert trial.user_attrs["curve 100"]["val_loss"][0] == 1
    assert trial.intermediate_values[0] == 1
    assert min(trial.intermediate_values.values()) <= 0.1


def test_a_grid_of_batch_sizes_is_tuned_cell_by_cell(tmp_path: Path) -> None:
    """Each arm at each batch size has its own trials and its own best settings."""
    grid = ("seeds: {count: 6}", "grid: {batch.gradient: [100, 200]}\nseeds: {count: 6}")
    records = tuned(study(tmp_path, grid, ("trials: 8", "trials: 4")), tmp_path / "out")

    assert (records.trials.groupby("arm").size() == 4).all()
    assert [(arm.label, arm.gradient_batch) for arm in records.study.arms][:2] == [
        ("adam gradient=100", 100), ("adam gradient=200", 200)
    ]  # fmt: skip


STARTED_TO_END = """
import os, signal
from bdhf.experiments.engines import process
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])  # as `shielded` does
os.kill(os.getpid(), signal.SIGTERM)
process._live(print, None, (), ())
"""


def test_a_worker_that_is_asked_to_end_while_it_starts_ends_without_a_traceback() -> None:
    """The signal waits until the worker unblocks signals; as after an early Ctrl-C in `tune`."""
    ended = subprocess.run(
        [sys.executable, "-c", STARTED_TO_END], capture_output=True, text=True, timeout=120
    )

    assert ended.stderr == ""
    assert ended.returncode == 128 + signal.SIGTERM

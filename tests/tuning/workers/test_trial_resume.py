"""A trial whose run resumes from a checkpoint equals the undisturbed trial."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import optuna
import pytest
import torch

from bdhf.experiments.engines.ending import SAVE_SECONDS, saved_first
from bdhf.experiments.engines.interrupt import interruptible
from bdhf.records import run_status
from bdhf.tuning.outcome.collect import stored_trials
from bdhf.tuning.storage.storage import StudyLocation
from bdhf.tuning.study.study import Study
from tests.messages import naming
from tests.tuning.synthetic import study, worked

#: Real runs, saved at every evaluation, of one arm whose trials are pruned by the median.
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


SIGNALS = (signal.SIGINT, signal.SIGTERM)


def of_adam(home: Path, *changes: tuple[str, str]) -> Study:
    """A study of one arm."""
    space = (
        "  hf:\n    lr: {linear: [0.1, 1.0]}\n    damping:\n      choice:\n"
        "        constant: {value: {log: [1.0e-4, 1.0]}}\n"
        "        levenberg_marquardt: {initial: {log: [1.0e-3, 10]}}\n"
        "    solver.max_iters: {log: [2, 20], whole: true}\n"
    )
    return study(home, *OFTEN, (space, ""), *changes)


def reported(of: Study, folder: Path) -> list[object]:
    """The reports of every finished trial to the pruner, with its state, settings and values."""
    (adam,) = stored_trials(of, StudyLocation(folder).open())
    return [(t.state, t.params, t.values, t.intermediate_values) for t in adam.trials]


def interrupting(
    at: int, interrupt: Callable[[], None]
) -> Callable[[optuna.Trial, float, int], None]:
    """A `Trial.report` that is interrupted once, at an update of the first trial."""
    report, times = optuna.Trial.report, list[int]()

    def reporting(trial: optuna.Trial, value: float, step: int) -> None:
        if trial.number == 0 and step == at and not times:
            times.append(step)
            interrupt()
        report(trial, value, step)

    return reporting


def killed() -> None:
    """End a run without saving it."""
    raise KeyboardInterrupt


def interrupted(of: Study, folder: Path, interrupt: Callable[[], None]) -> list[Path]:
    """Work on a study until it is interrupted at update 8; its checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optuna.Trial, "report", interrupting(8, interrupt))
        with pytest.raises(KeyboardInterrupt), interruptible():
            worked(of, folder)
    return list((folder / "checkpoints").glob("*.pt"))


def test_the_pruner_knows_all_of_a_run_that_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows before the interruption are reported again, so the pruner decides alike."""
    monkeypatch.setattr("bdhf.experiments.engines.execution.CHECKPOINT_SECONDS", 0.0)
    of = of_adam(tmp_path)

    saved = interrupted(of, tmp_path / "disturbed", killed)
    worked(of, tmp_path / "disturbed")
    worked(of, tmp_path / "alone")

    assert len(saved) == 1
    assert reported(of, tmp_path / "disturbed") == reported(of, tmp_path / "alone")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end_a_trial_saves_its_run_and_continues_from_there(
    tmp_path: Path, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Even a short run is saved; a line reports it, no death counts, handlers are restored."""
    of, before = of_adam(tmp_path), [signal.getsignal(n) for n in SIGNALS]

    (saved,) = interrupted(of, tmp_path / "out", partial(signal.raise_signal, number))
    update = torch.load(saved, weights_only=True)["state"]["update"]
    worked(of, tmp_path / "out")
    (adam,) = stored_trials(of, StudyLocation(tmp_path / "out").open())
    run_id = adam.trials[0].user_attrs["seeds"][0]["run_id"]
    status = run_status(tmp_path / "out", run_id)

    assert 8 <= update < 12
    assert re.search(naming("adam", f"{SAVE_SECONDS:g}"), capfd.readouterr().err)
    assert status is not None
    assert (status["status"], status["resumed"]) == ("done", 1)
    assert adam.trials[0].user_attrs["deaths"] == 0
    assert not saved.exists()
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_where_no_checkpoint_is_wanted_an_interruption_waits_for_none(tmp_path: Path) -> None:
    """With `checkpoint_every: null` no checkpoint is written, not even after Ctrl-C."""
    of = of_adam(tmp_path, ("checkpoint_every: 1", "checkpoint_every: null"))

    assert interrupted(of, tmp_path / "out", partial(signal.raise_signal, signal.SIGINT)) == []


def saving(*during: Callable[[], object]) -> None:
    """Do something while a run waits to be saved."""
    with saved_first("a run that is") as ending:
        ending.can_wait = True
        for what in during:
            what()


def test_a_second_signal_ends_a_run_that_is_being_saved(tmp_path: Path) -> None:
    """A second signal does not wait for the checkpoint."""
    told = list[int]()

    def handler(number: int, frame: object) -> None:
        told.append(number)
        raise KeyboardInterrupt

    interrupt = partial(signal.raise_signal, signal.SIGINT)
    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            saving(interrupt, lambda: told.append(0), interrupt, lambda: told.append(1))
    finally:
        signal.signal(signal.SIGINT, before)

    assert told == [signal.SIGINT, 0, signal.SIGINT]


def test_what_takes_too_long_to_save_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """We do not wait minutes for an update."""
    monkeypatch.setattr("bdhf.experiments.engines.ending.SAVE_SECONDS", 0.05)
    begun = time.monotonic()

    with pytest.raises(KeyboardInterrupt):
        saving(partial(signal.raise_signal, signal.SIGINT), partial(time.sleep, 60))

    assert time.monotonic() - begun < 30

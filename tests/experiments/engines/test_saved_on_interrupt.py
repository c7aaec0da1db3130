"""Ctrl-C, or SIGTERM of a scheduler, during a run: its worker saves it, and it resumes later."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass, field
from multiprocessing import active_children

import pandas as pd
import pytest
import torch

from bdhf.experiments.ablation import Ablation
from bdhf.experiments.engines.process import ASKED_TO_END, ExitStatus
from tests.experiments.specs import changed
from tests.experiments.stateful_parts import NAME, importable, spec_of

LONG = (("updates: 14", "updates: 2000"), ("every_updates: 2", "every_updates: 50"))
ADAM, COUNTING = "{type: torch.Adam, lr: 1.0e-3}", f"{NAME}:Counting"


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """The module of own parts, where Python and its workers find it."""
    yield from importable(tmp_path, monkeypatch)


@dataclass
class Watcher:
    """Sends this process a signal when a run reaches an update."""

    at: float = float("inf")
    number: int = signal.SIGINT
    updates: list[float] = field(default_factory=list)

    def started(self, run):
        """Nothing yet."""

    def evaluated(self, run, row):
        """A row was measured."""
        self.updates.append(row["update"])
        if row["update"] == self.at:
            signal.raise_signal(self.number)

    def finished(self, run, status, reason):
        """Nothing more."""


@dataclass
class SignalToWorker(Watcher):
    """Sends SIGTERM to the worker only, a number of times."""

    times: int = 1

    def evaluated(self, run, row):
        """A row was measured."""
        self.updates.append(row["update"])
        if row["update"] >= 50 and self.times:
            self.times -= 1
            (worker,) = active_children()
            os.kill(worker.pid, signal.SIGTERM)
            worker.join()


def run(folder, arm, watcher, changes=""):
    """Run the spec with an arm; return its messages."""
    told: list[str] = []
    spec = folder / "spec.yaml"
    spec.write_text(changed(*LONG, text=spec_of(arm)) + changes)
    ablation = Ablation.open(spec, folder / "out")
    todo = list(ablation.left(ablation.cells).values())
    ablation.run(todo, workers=1, observer=watcher, note=told.append)
    return told


def interrupted(folder, arm, number, changes=""):
    """Interrupt it at update 50; its checkpoints."""
    with pytest.raises(KeyboardInterrupt):
        run(folder, arm, Watcher(50, number), changes)
    return list((folder / "out").glob("checkpoints/*.pt"))


def result(folder):
    """The status and the curve of the only run."""
    (home,) = (folder / "out" / "runs").iterdir()
    return json.loads((home / "status.json").read_text()), pd.read_parquet(home / "curve.parquet")


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_saves_the_run_where_it_is(tmp_path, number):
    """Also a short run, at the update of the signal."""
    (saved,) = interrupted(tmp_path, ADAM, number)

    assert torch.load(saved, weights_only=True)["state"]["update"] >= 50


@pytest.mark.slow
def test_the_next_command_continues_from_there(tmp_path):
    """No evaluation is repeated, and none is left out."""
    (saved,) = interrupted(tmp_path, ADAM, signal.SIGTERM)
    update = torch.load(saved, weights_only=True)["state"]["update"]
    watcher = Watcher()
    run(tmp_path, ADAM, watcher)
    status, curve = result(tmp_path)

    assert watcher.updates[0] == update - update % 50 + 50
    assert status["resumed"] == 1
    assert "no_checkpoint" not in status
    assert curve["update"].tolist() == list(range(0, 2001, 50))
    assert not saved.exists()


@pytest.mark.long
def test_a_run_that_keeps_more_than_a_checkpoint_is_not_saved(tmp_path):
    """It starts again."""
    assert interrupted(tmp_path, COUNTING, signal.SIGINT) == []


@pytest.mark.long
def test_where_no_checkpoint_is_wanted_an_interruption_waits_for_none(tmp_path):
    """`checkpoint_every: null` means never, also on Ctrl-C."""
    never = "safety: {checkpoint_every: null}\n"

    assert interrupted(tmp_path, ADAM, signal.SIGINT, never) == []


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_alone_costs_nothing(tmp_path):
    """Another worker resumes its run."""
    watcher = SignalToWorker()
    run(tmp_path, ADAM, watcher)
    status, curve = result(tmp_path)

    assert (status["status"], status["resumed"]) == ("done", 1)
    assert watcher.updates == curve["update"].tolist() == list(range(0, 2001, 50))


@pytest.mark.long
def test_a_run_whose_workers_are_asked_to_end_again_and_again_is_an_error(tmp_path):
    """Otherwise the restarts would never end."""
    run(tmp_path, ADAM, SignalToWorker(times=10))
    status, _ = result(tmp_path)

    assert status["status"] == "error"
    assert status["reason"] == str(ExitStatus(ASKED_TO_END))

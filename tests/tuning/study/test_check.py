"""`bdhf tune` refuses what cannot run before the first trial, as `bdhf run` does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bdhf.tuning.study.check import check_study
from bdhf.tuning.study.study import open_study
from tests.commands import bdhf
from tests.experiments.own_problems import written
from tests.messages import naming

STUDY = """\
schema: 1
name: own
ablation: spec.yaml
spaces:
  adam: {lr: {log: [1.0e-4, 1.0e-2]}}
  hf:
    damping: {choice: [1.0e-2, {type: "own_damping_here:Broken"}]}
trials: 2
seeds: {count: 1, base: 100}
held_out: false
"""

#: A user's damping that resolves as a part, and fails in an update.
BROKEN = """\
from dataclasses import dataclass


@dataclass(frozen=True)
class Broken:
    initial: float = 0.1
    per_block: bool = False

    def update(self, damping, ratio):
        raise ValueError("no such ratio")
"""

FINE = ('{type: "own_damping_here:Broken"}', "0.1")
TARGET = ("budget: {updates: 2}", "budget: {updates: 2}\ntargets: [{metric: val_loss, below: 0.1}]")

#: Problem of the ablation, changes of the study, facts of the message: for an arm, a problem, its
#: data, and a choice that only some trials would make.
REFUSED = {
    "arm": ("Dropping", FINE, ("spec.yaml:7:3: arms.hf: hf:",)),
    "problem": ("Flat", FINE, ("spec.yaml:3:10: problem: own_problems_here:Flat",)),
    "data": ("Many", FINE, ("`samples`", 5000, 40)),
    "choice": (
        "Fits",
        ("", ""),
        (
            "study.yaml:7:5: spaces.hf.damping: hf with damping=own_damping_here:Broken:",
            "ValueError: no such ratio",
        ),
    ),
}


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the commands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_damping_here.py").write_text(BROKEN)
    return tmp_path


def study(home: Path, problem: str, change: tuple[str, str]) -> None:
    """A study of a user's problem, in the same folder."""
    written(home, problem, TARGET)
    (home / "study.yaml").write_text(STUDY.replace(*change) if change[0] else STUDY)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_refused_before_anything_is_written(there: Path, case: str) -> None:
    """Exit code 2, one line with the location, and no results folder; the same with `--worker`."""
    problem, change, facts = REFUSED[case]
    study(there, problem, change)

    done = bdhf("tune", "study.yaml", "--out", "results", code=2)
    worker = bdhf("tune", "study.yaml", "--out", "results", "--worker", code=2)

    (line,) = done.stderr.splitlines()
    assert re.search(naming(*facts, "--no-check"), line), line
    assert worker.stderr == done.stderr
    assert not (there / "results").exists()


@pytest.mark.slow
def test_no_check_continues_and_a_finished_study_is_not_tried_again(there: Path) -> None:
    """Without the check the trials report the failure; a finished study is not checked."""
    study(there, "Fits", ("", ""))

    first = bdhf("tune", "study.yaml", "--no-check", "--set", "trials=1")
    again = bdhf("tune", "study.yaml", "--set", "trials=1")
    more = bdhf("tune", "study.yaml", code=2)

    assert "adam 1/1: " in first.stdout
    assert "report: results/studies/own/report.html" in again.stdout
    assert "ValueError: no such ratio" in more.stderr


def test_what_is_left_out_is_reported_once_for_every_reason(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time limit of the check neither arms nor choices are tried."""
    monkeypatch.setattr("bdhf.experiments.dry_run.check.SECONDS", -1.0)
    monkeypatch.setattr("bdhf.experiments.dry_run.check.is_kept", lambda key: False)
    study(there, "Fits", FINE)

    arms, choices = check_study(open_study(there / "study.yaml"))

    assert re.search(naming("adam", 1, "-1 s"), arms)
    assert re.search(naming("hf with damping=0.01", 1, "-1 s"), choices)

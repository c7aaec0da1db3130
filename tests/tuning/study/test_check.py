"""`bdhf tune` refuses what cannot run before the first trial, as `bdhf run` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdhf.tuning.study.check import check_study
from bdhf.tuning.study.study import open_study
from tests.commands import bdhf
from tests.experiments.own_problems import written

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

#: A damping of a user's own that works as a part, and not in an update.
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

#: Problem of the ablation, changes of the study -> what `tune` says: an arm, a problem, its data,
#: and a choice that only some trials would come to.
REFUSED = {
    "arm": (
        "Dropping",
        FINE,
        "spec.yaml:7:3: arms.hf: hf: its first update, on a synthetic batch, ",
    ),
    "problem": ("Flat", FINE, "spec.yaml:3:10: problem: own_problems_here:Flat, on a synthetic "),
    "data": ("Many", FINE, "`samples` says 5000 training samples, and load() gives 40"),
    "choice": (
        "Fits",
        ("", ""),
        "study.yaml:7:5: spaces.hf.damping: hf with damping=own_damping_here:Broken: its first "
        "update, on a synthetic batch, raises ValueError: no such ratio",
    ),
}


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_damping_here.py").write_text(BROKEN)
    return tmp_path


def study(home: Path, problem: str, change: tuple[str, str]) -> None:
    """A study of a problem of a user's own, beside it."""
    written(home, problem, TARGET)
    (home / "study.yaml").write_text(STUDY.replace(*change) if change[0] else STUDY)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_refused_before_anything_is_written(there: Path, case: str) -> None:
    """Exit code 2, one line with its place, and no results folder; a worker refuses it too."""
    problem, change, told = REFUSED[case]
    study(there, problem, change)

    done = bdhf("tune", "study.yaml", "--out", "results", code=2)
    worker = bdhf("tune", "study.yaml", "--out", "results", "--worker", code=2)

    (line,) = done.stderr.splitlines()
    assert told in line
    assert "--no-check skips this check" in line
    assert worker.stderr == done.stderr
    assert not (there / "results").exists()


@pytest.mark.slow
def test_no_check_goes_on_and_a_finished_study_is_not_tried_again(there: Path) -> None:
    """The trials say it themselves then; after the last of them there is nothing to refuse."""
    study(there, "Fits", ("", ""))

    first = bdhf("tune", "study.yaml", "--no-check", "--set", "trials=1")
    again = bdhf("tune", "study.yaml", "--set", "trials=1")
    more = bdhf("tune", "study.yaml", code=2)

    assert "adam 1/1: " in first.stdout
    assert "report: results/studies/own/report.html" in again.stdout
    assert "raises ValueError: no such ratio" in more.stderr


def test_what_is_left_out_is_told_once_for_every_reason(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither arms nor choices are begun after the seconds that a plan has."""
    monkeypatch.setattr("bdhf.experiments.dry_run.check.SECONDS", -1.0)
    monkeypatch.setattr("bdhf.experiments.dry_run.check.is_kept", lambda key: False)
    study(there, "Fits", FINE)

    arms, choices = check_study(open_study(there / "study.yaml"))

    assert arms.startswith("not checked: adam and 1 more: the -1 s of this check were over")
    assert choices.startswith("not checked: hf with damping=0.01 and 1 more: ")

"""`bdhf tune`, from a study to its report and the tuned spec."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bdhf.cli.tune import _warn_of_company
from bdhf.records import load, load_study
from tests.experiments.specs import write_study
from tests.messages import naming
from tests.tuning.synthetic import study

pytestmark = pytest.mark.slow

SHORT = (
    ("updates: 40", "updates: 5"),
    ("below: 0.1", "below: 0.12"),
    ("seeds: {count: 6}", "seeds: {count: 2}"),
    ("trials: 8", "trials: 3"),
)


def bdhf(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "bdhf.cli", *words],
        cwd=home, capture_output=True, text=True, timeout=300, env=os.environ,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two arms that was tuned, and its tuned spec."""
    home = tmp_path_factory.mktemp("tune")
    write_study(home, *SHORT)
    done = bdhf(home, "tune", "study.yaml", "--write", "tuned/small.yaml")
    (home / "said").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return home


def test_a_study_leaves_its_records_and_its_page(home: Path) -> None:
    """Trials, the held-out comparison and one page per ablation and study are there."""
    folder = home / "results" / "studies" / "small"
    records = load_study(folder)
    said = (home / "said").read_text()

    assert records.study.is_whole
    assert records.trials.groupby("arm").size().to_dict() == {"adam": 3, "hf": 3}
    assert records.held_out is not None
    assert set(load(records.held_out).runs["status"]) <= {"done", "diverged"}
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "held_out" / "report.html").exists()
    assert "adam 3/3: " in said
    assert "`set: {seeds.count: " in said
    assert "report: results/studies/small/report.html" in said
    assert "tuned spec: tuned/small.yaml" in said


def test_the_tuned_spec_is_run_and_says_how_it_was_tuned(home: Path) -> None:
    """`bdhf run` of what was written ends in a report that states the study and its trials."""
    done = bdhf(home, "run", "tuned/small.yaml", "--workers", "2")
    page = (home / "results" / "small-tuned" / "report.html").read_text()
    tuning = load(home / "results" / "small-tuned").tuning

    assert done.returncode == 0, done.stdout + done.stderr
    assert tuning is not None
    assert {how.how for how in tuning.arms.values()} == {"tuned"}
    assert {how.trials for how in tuning.arms.values()} == {3}
    assert re.search(r"studies/small\W+3 trials", page)


def test_the_same_command_again_changes_no_trial(home: Path) -> None:
    """Finished trials are not repeated, and the page has the same bytes."""
    folder = home / "results" / "studies" / "small"
    before = (folder / "report.html").read_bytes(), (folder / "trials.parquet").read_bytes()

    done = bdhf(home, "tune", "study.yaml")
    again = bdhf(home, "report", "results/studies/small")

    assert done.returncode == again.returncode == 0, done.stderr + again.stderr
    assert "/3: " not in done.stdout
    after = (folder / "report.html").read_bytes(), (folder / "trials.parquet").read_bytes()
    assert before == after


def test_a_changed_study_is_refused_under_its_old_name(home: Path) -> None:
    """Trials of two definitions are not combined: one line, exit code 2, nothing is changed."""
    before = (home / "results" / "studies" / "small" / "study.json").read_bytes()

    done = bdhf(home, "tune", "study.yaml", "--set", "seeds.base=500")

    assert done.returncode == 2
    assert re.search(naming("study.yaml", "small/adam", "`name`"), done.stderr)
    assert (home / "results" / "studies" / "small" / "study.json").read_bytes() == before


@pytest.mark.parametrize(
    ("workers", "change", "warns"),
    [
        (1, "objective: seconds_to_target", False),
        (2, "objective: seconds_to_target", True),
        (2, "objective: [updates_to_target, seconds_to_target]", True),
        (2, "objective: updates_to_target", False),
    ],
)
def test_seconds_that_are_tuned_in_company_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int, change: str, warns: bool
) -> None:
    """Arms that are tuned at the same time slow each other down."""
    _warn_of_company(study(tmp_path, ("trials: 8", f"{change}\ntrials: 8")), workers)

    assert ("--workers 1" in capsys.readouterr().err) is warns


def test_a_wrong_command_line_is_reported(home: Path) -> None:
    """--write is refused for a worker, and an invalid storage is one line."""
    worker = bdhf(home, "tune", "study.yaml", "--worker", "--write", "x.yaml")
    url = bdhf(home, "tune", "study.yaml", "--storage", "nonsense://x", "--out", "other")

    assert worker.returncode == 2
    assert url.returncode == 2
    assert "--storage: " in url.stderr
    assert "Traceback" not in worker.stderr + url.stderr

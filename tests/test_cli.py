"""The command line, from a YAML file to a report, in separate processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

import bdhf
from bdhf.experiments.parts.tables import CURVATURES, PARTITIONS, SOLVERS
from tests.experiments.specs import SMALL, changed

pytestmark = pytest.mark.slow


def command(*arguments, cwd) -> subprocess.CompletedProcess[str]:
    """Run `bdhf` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "bdhf.cli", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The small ablation, run once by two workers: its folder and its output."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "spec.yaml").write_text(SMALL)
    done = command("run", "spec.yaml", "--out", "first", "--workers", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def tables(folder):
    """The collected tables, without what may differ between two executions."""
    records = bdhf.load(folder)
    return records.runs.drop(columns="seconds"), records.curves.drop(columns="seconds")


def assert_same_tables(first, second):
    """Every run once, every number the same bits."""
    for left, right in zip(tables(first), tables(second), strict=True):
        pd.testing.assert_frame_equal(left, right, check_exact=True)


def test_a_run_ends_by_printing_the_verdict_and_the_report(finished):
    """The last lines are the comparison in words and the path of the page."""
    folder, done = finished
    lines = done.stdout.strip().splitlines()

    assert lines[0] == "small: 6 runs, 0 done, 6 to do -> first"
    assert sum(line.startswith("[") for line in lines) == 6
    assert "block_hf" in lines[-2]
    assert "full_hf" in lines[-2]
    assert lines[-1] == "report: first/report.html"
    page = (folder / "first" / "report.html").read_text()
    assert lines[-2].split(" (")[0] in page


def test_a_results_folder_has_the_documented_files(finished):
    """The files of docs/records.md are there, and nothing temporary."""
    root = finished[0] / "first"

    assert {p.name for p in root.iterdir()} == {
        "spec.yaml", "plan.json", "plan.parquet", "runs", "claims", "runs.parquet",
        "curves.parquet", "comparisons.parquet", "multiverse.parquet", "report.html", "figures",
    }  # fmt: skip
    for run in (root / "runs").iterdir():
        assert {p.name for p in run.iterdir()} == {
            "spec.yaml", "status.json", "env.json", "curve.parquet",
        }  # fmt: skip


def test_twice_into_two_folders_gives_the_same_bits(finished):
    """Curves are identical but for the seconds, with another number of workers too."""
    folder, _ = finished

    done = command("run", "spec.yaml", "--out", "second", "--workers", "1", cwd=folder)

    assert done.returncode == 0, done.stderr
    assert_same_tables(folder / "first", folder / "second")


def test_running_again_runs_nothing(finished):
    """A finished ablation is only reported."""
    folder, _ = finished
    before = {p: p.stat().st_mtime_ns for p in (folder / "first" / "runs").rglob("*")}

    done = command("run", "spec.yaml", "--out", "first", cwd=folder)

    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "small: 6 runs, 6 done, 0 to do -> first"
    assert {p: p.stat().st_mtime_ns for p in (folder / "first" / "runs").rglob("*")} == before


def test_killed_half_way_and_started_again_it_ends_with_the_same_table(finished):
    """SIGKILL after the second run; the restart does the rest, each run once."""
    folder, _ = finished
    started = subprocess.Popen(
        [sys.executable, "-m", "bdhf.cli", "run", "spec.yaml", "--out", "killed"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    runs = folder / "killed" / "runs"
    deadline = time.monotonic() + 120
    while len(list(runs.glob("[0-9a-f]*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    time.sleep(1.0)  # its workers notice, and end
    kept = {p.name: p.stat().st_mtime_ns for p in runs.glob("[0-9a-f]*")}
    assert 2 <= len(kept) < 6
    between = command("report", "killed", cwd=folder)
    assert between.returncode == 0
    page = (folder / "killed" / "report.html").read_text()
    assert f"{len(kept)} of 6 runs" in page

    done = command("run", "spec.yaml", "--out", "killed", cwd=folder)

    assert done.returncode == 0, done.stderr
    assert f"{len(kept)} done, {6 - len(kept)} to do" in done.stdout
    assert {name: (runs / name).stat().st_mtime_ns for name in kept} == kept
    assert not list(runs.glob(".tmp-*"))
    assert_same_tables(folder / "first", folder / "killed")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (changed(("partition: full", "partition: ful")), "spec.yaml:7:44: arms.full_hf.partition"),
        (changed(("lr: 3.0e-3", "lr: .nan")), "spec.yaml:6:32: arms.adam.lr: "),
        (changed(('["encoder.*"], ', "")), "spec.yaml:9:34: arms.block_hf.partition: "),
        (None, "spec.yaml: "),
    ],
    ids=["typo", "NaN", "left out", "missing"],
)
def test_a_bad_spec_is_one_line_and_exit_code_2_and_writes_nothing(tmp_path, text, line):
    """Nothing is run or written before the whole spec is valid."""
    if text is not None:
        (tmp_path / "spec.yaml").write_text(text)
    before = sorted(tmp_path.iterdir())

    done = command("run", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(line)
    assert sorted(tmp_path.iterdir()) == before


#: A module with an optimizer that raises in its second step: the first is made before any run.
STOPS = """
import torch


class Stops(torch.optim.SGD):
    begun = False

    def step(self, closure=None):
        if self.begun:
            raise RuntimeError("planted in a step")
        self.begun = True
        return super().step(closure)
"""


def test_a_failed_run_is_kept_and_gives_exit_code_1(tmp_path):
    """A run that raises stays in the table with its reason; the others are done."""
    (tmp_path / "lab_stops.py").write_text(STOPS)
    text = changed(("torch.Adam, lr: 3.0e-3", "lab_stops:Stops"), ("count: 2", "count: 1"))
    (tmp_path / "spec.yaml").write_text(text)

    done = command("run", "spec.yaml", "--out", "out", cwd=tmp_path)

    assert done.returncode == 1
    assert "1 error: " in done.stderr
    assert "--retry" in done.stderr
    runs = bdhf.load(tmp_path / "out").runs.set_index("arm")
    assert runs["status"].to_dict() == {"adam": "error", "full_hf": "done", "block_hf": "done"}
    assert "planted in a step" in runs.loc["adam", "reason"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "planted in a step" in page
    assert list((tmp_path / "out" / "runs").glob("*/traceback.txt"))


def test_plan_says_what_an_update_will_cost(tmp_path):
    """Adam takes one gradient, block HF the products of its solver."""
    (tmp_path / "spec.yaml").write_text(SMALL)

    rows = command("plan", "spec.yaml", "--cost", cwd=tmp_path).stdout.splitlines()

    costs = {row.split()[1]: float(row.split()[-2]) for row in rows if " 0 to 1 " in row}
    assert costs["adam"] == 1
    assert 1 < costs["full_hf"] < costs["block_hf"] < 10


def test_plan_and_status_show_and_write_nothing(finished, tmp_path):
    """`plan` shows what is to do, `status` what was done."""
    folder, _ = finished
    (tmp_path / "spec.yaml").write_text(SMALL)

    fresh = command("plan", "spec.yaml", cwd=tmp_path)
    done = command("status", folder / "first", cwd=tmp_path)
    nothing = command("status", "nowhere", cwd=tmp_path)

    assert fresh.returncode == 0
    assert "small: 6 runs, 0 done, 6 to do -> results/small" in fresh.stdout
    facts = "compare block vs full: ", "block_hf", "full_hf", "updates", "val_loss ≤ 0.08"
    assert any(all(fact in line for fact in facts) for line in fresh.stdout.splitlines())
    assert done.returncode == 0
    assert done.stdout.count("2 done") == 3
    assert nothing.returncode == 2
    assert "plan.parquet" in nothing.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["spec.yaml"]


GRID = changed(
    ("count: 2", "count: 1"),
    (
        "seeds:",
        "grid:\n  arms.full_hf.curvature: [ggn, hessian]\n"
        "  arms.full_hf.solver: [{type: cg, max_iters: 5}, sample_space]\nseeds:",
    ),
    ("gradient: 200, curvature: 50", "gradient: 20, curvature: 2"),
)


def test_a_grid_runs_what_it_can_and_reports_what_it_skips(tmp_path):
    """Skipped cells are listed by reason in plan, run and status, and are no failure."""
    (tmp_path / "spec.yaml").write_text(GRID)

    def reasons(text):
        return [line for line in text.splitlines() if line.startswith("1 skipped: sample_space ")]

    plan = command("plan", "spec.yaml", cwd=tmp_path)
    done = command("run", "spec.yaml", "--out", "out", cwd=tmp_path)
    status = command("status", "out", cwd=tmp_path)

    assert len(reasons(plan.stdout)) == 1
    assert "block_hf against full_hf curvature=hessian solver=cg" in plan.stdout
    assert "small: 6 runs, 0 done, 5 to do, 1 skipped -> results/small" in plan.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert "small: 6 runs, 0 done, 5 to do, 1 skipped -> out" in done.stdout
    assert len(reasons(status.stdout)) == 1
    runs = bdhf.load(tmp_path / "out").runs
    assert sorted(runs["status"]) == ["done"] * 5 + ["skipped"]


def test_report_is_made_again_from_the_records_alone(finished):
    """The same records give the same bytes, without torch."""
    folder, _ = finished
    page = folder / "first" / "report.html"
    before = page.read_bytes()
    page.unlink()

    done = command("report", "first", cwd=folder)

    assert done.returncode == 0, done.stderr
    assert page.read_bytes() == before


def test_list_shows_every_part_with_one_line_each(tmp_path):
    """The list has every name of the tables."""
    done = command("list", cwd=tmp_path)

    assert done.returncode == 0
    for name in ("autoencoder", "ggn", "full", "per_layer", "groups", "cg", "torch.Adam"):
        assert any(line.split()[:1] == [name] and len(line.split()) > 3
                   for line in done.stdout.splitlines()), name  # fmt: skip


def test_the_table_of_compatibility_numbers_its_reasons(tmp_path):
    """Every triple has yes or the number of a reason below."""
    done = command("list", "--compatibility", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    bars = len(SOLVERS) + 3
    rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if line.count("│") == bars]
    cells = {tuple(word.strip() for word in row[:2]): [w.strip() for w in row[2:]] for row in rows}
    assert len(cells) == len(CURVATURES) * len(PARTITIONS)
    assert cells["ggn", "blend"] == ["yes"] * len(SOLVERS)
    answers = dict(zip(SOLVERS, cells["hessian", "full"], strict=True))
    number = answers.pop("sample_space")
    assert set(answers.values()) == {"yes"}
    assert f"{number}: sample_space " in done.stdout


@pytest.mark.parametrize("code", ["import bdhf.cli", "import bdhf.report, bdhf.stats.compare"])
def test_help_statistics_and_report_start_without_torch(code, tmp_path):
    """Torch is imported when something is trained, not before."""
    check = f"{code}; import sys; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, check=False)

    assert done.returncode == 0

"""Forgeries of a report: `bdhf verify` finds those that the docs claim."""

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bdhf.cli import app
from bdhf.cli.audit import pool_line, unmade_line
from bdhf.experiments.run.execute import execute
from bdhf.experiments.run.provenance import run_environment
from bdhf.experiments.spec.schema import Safety
from bdhf.records import collect
from bdhf.report import build
from bdhf.report.embedded.encoding import decode
from bdhf.report.verify.verify import block_of, verify
from tests.experiments.synthetic import begun
from tests.forgeries import FORGERIES, MODES, table

CHANGES = (
    ("{type: autoencoder, encoder: [784, 12, 4]}", "{type: mlp, hidden: [8]}"),
    ('{type: groups, blocks: [["encoder.*"], ["decoder.*"]]}', "per_layer"),
    ("count: 2", "count: 3"),
    ("below: 0.08", "below: 2.1"),
    ("compare:", "report: {figures: [forest]}\ncompare:"),
)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A real ablation with its report."""
    folder = tmp_path_factory.mktemp("honest") / "results"
    store, cells = begun(folder, *CHANGES)
    for cell in cells:
        made = execute(cell.run, device="cpu", safety=Safety(seconds=600))
        store.write(cell.run, made, run_environment("cpu", 1), {"wall_seconds": 1.0})
    collect(folder)
    build(folder)
    return folder


def forged(forgery, honest, folder):
    """The forged page, without results."""
    html = (honest / "report.html").read_text(encoding="utf-8")
    path = folder / "report.html"
    path.write_text(forgery.forge(html, decode(block_of(html, "page"))), encoding="utf-8")
    return path


def code(page, mode, honest):
    """The result of a mode; every repeatable run is repeated."""
    more = {"verify": [], "--rerun": ["--rerun", "99"], "--against": ["--against", str(honest)]}
    return CliRunner().invoke(app, ["verify", str(page), *more[mode]])


def name(forgery):
    """For the names of tests."""
    return forgery.what.replace(" ", "-")


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("forgery", FORGERIES, ids=name)
def test_a_mode_finds_what_the_table_says(forgery, mode, honest, tmp_path):
    """Exit code 1 if it does, 0 if it does not."""
    done = code(forged(forgery, honest, tmp_path), mode, honest)

    assert done.exit_code == int(mode in forgery.found_by), done.output
    assert done.exit_code == 0 or len(done.output.splitlines()) > 1


@pytest.mark.slow
def test_the_honest_report_agrees_in_every_mode(honest):
    """No mode reports a false difference."""
    for mode in MODES:
        done = code(honest / "report.html", mode, honest)
        assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_runs_that_nobody_can_check_are_counted(honest, tmp_path):
    """In a line, and as JSON; they are not drawn."""
    (forgery,) = (f for f in FORGERIES if f.what.endswith("run out of memory"))
    page = str(forged(forgery, honest, tmp_path))

    done = CliRunner().invoke(app, ["verify", page, "--rerun", "1"])
    content = CliRunner().invoke(app, ["verify", page, "--rerun", "1", "--json"])

    assert done.exit_code == content.exit_code == 0
    assert pool_line(9, Counter(oom=1)) in done.output.splitlines()
    again = json.loads(content.stdout)["rerun"]
    assert (again["can_be_made_again"], again["cannot_be_checked"]) == (8, {"oom": 1})
    assert len(again["runs"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("words", "why"), [("made yet", "not run yet"), ("be torn", "torn")])
def test_runs_that_were_not_made_are_counted(honest, tmp_path, words, why):
    """A run that is stated as not made yet may hide a run with an unwanted result."""
    (forgery,) = (f for f in FORGERIES if f.what.endswith(words))
    page = str(forged(forgery, honest, tmp_path))

    done = CliRunner().invoke(app, ["verify", page, "--rerun", "1"])
    content = CliRunner().invoke(app, ["verify", page, "--rerun", "1", "--json"])

    assert unmade_line(9, Counter({why: 1})) in done.output.splitlines()
    assert json.loads(content.stdout)["rerun"]["not_made"] == {why: 1}


def test_the_line_of_what_cannot_be_checked_counts_each_status():
    """As the docs show it."""
    docs = (Path(__file__).parent.parent / "docs/verify.md").read_text(encoding="utf-8")

    assert f"\n{pool_line(16, Counter(oom=3))}\n" in docs
    assert f"\n{unmade_line(18, Counter({'not run yet': 2}))}\n" in docs
    assert pool_line(9, Counter(oom=1, timeout=2)).endswith(": oom 1, timeout 2")


SAMPLED = (
    "a script in a figure", "a line of a figure in", "list of files", "cut short", "finite loss",
    "one loss",
)  # fmt: skip
SAMPLE = [forgery for forgery in FORGERIES if any(words in forgery.what for words in SAMPLED)]


@pytest.mark.slow
@pytest.mark.parametrize("forgery", SAMPLE, ids=name)
def test_without_a_folder_and_a_run_the_page_alone_reports_what_the_table_says(
    forgery, honest, tmp_path
):
    """A sample of the forgeries, in the mode without further input."""
    assert verify(forged(forgery, honest, tmp_path)).agrees is ("verify" not in forgery.found_by)


def test_the_table_of_the_docs_is_the_measured_one():
    """Row by row; at least 24 forgeries, also some that no mode finds."""
    docs = (Path(__file__).parent.parent / "docs/verify.md").read_text(encoding="utf-8")
    section = docs.split("## What was forged, and what found it\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]

    assert rows[0] == "| forged | `verify` | `--rerun` | `--against` |"
    assert rows[2:] == table()
    assert len(FORGERIES) >= 24
    assert {f.found_by for f in FORGERIES} == {(), *(MODES[i:] for i in range(3))}

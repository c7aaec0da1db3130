"""The commands on made-up folders, in this process: their output and exit codes."""

import json
import os
import re
from pathlib import Path

import pytest

from bdhf.cli.app import clock, holder, out
from bdhf.experiments.storage.claims import Claims, living
from bdhf.records import Status
from tests.commands import bdhf
from tests.experiments.specs import SMALL, changed
from tests.experiments.synthetic import begun, claim, write
from tests.messages import naming


def strict(text):
    """Read strict JSON, without the extensions of Python."""

    def refuse(name):
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A folder that has begun, in the working directory with its spec; and its cells."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(SMALL)
    return begun(tmp_path / "small")


@pytest.mark.parametrize("width", [60, 160])
def test_status_is_a_table_and_a_line_for_whatever_is_wrong(made, monkeypatch, width):
    """First the counts, then the arms, then the runs under way and the problems."""
    monkeypatch.setattr(out, "_width", width)
    store, cells = made
    write(store, cells[0])
    write(store, cells[1], Status.ERROR)
    claims = Claims(store.folder)
    claims.take(cells[2].run_id)

    lines = bdhf("status", "small").stdout.splitlines()
    claims.close()

    counts = "1 done", "1 failed", "1 running", "4 left", "40 s"
    assert re.match(naming(*counts), lines[0])
    assert any("block_hf" in line and "│" in line for line in lines)
    assert any(f"block_hf seed 0 ({cells[2].run_id}): process {os.getpid()}" in x for x in lines)
    assert lines[-1] == f"full_hf seed 0 ({cells[1].run_id}): error: a reason"


def test_status_as_json_is_json(made):
    """Owners are plain data, and numbers that are not finite are null."""
    store, cells = made
    write(store, cells[0], wall_seconds=float("nan"))
    claim(store, cells[2], '{"host": "elsewhere", "pid": 7, "started": 2.0, "made": NaN}')

    content = strict(bdhf("status", "small", "--json").stdout)

    assert content["done"] == 1
    owner = {"host": "elsewhere", "pid": 7, "started": 2.0, "ticks": None}
    assert content["running"][0]["owner"] == owner
    assert content["running"][0]["made"] is None
    assert content["seconds_left"] is None


def test_status_of_a_claim_that_cannot_be_read_says_so(made):
    """Not a process 0 since 1970."""
    store, cells = made
    claim(store, cells[2], "{")

    printed = bdhf("status", "small").stdout

    (held,) = living(store.folder)
    assert f"({cells[2].run_id}): {holder(held)}\n" in printed
    assert "process 0" not in printed


def test_status_is_watched_until_nothing_is_left(made, monkeypatch):
    """Each repetition reads the folder again; the last table stays."""
    store, cells = made
    left = list(cells)
    monkeypatch.setattr("time.sleep", lambda seconds: write(store, left.pop()))

    printed = bdhf("status", "small", "--watch", "5").stdout

    assert left == []
    assert "6 done" in printed


def test_who_stops_watching_gets_the_last_look(made, monkeypatch):
    """Ctrl-C is the normal end, not an error."""

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)

    assert "0 done, 6 left" in bdhf("status", "small", "--watch", "5").stdout


@pytest.mark.parametrize(
    "arguments",
    [("status", "nowhere"), ("status", "spec.yaml"), ("status", "nowhere", "--json"),
     ("status", "small", "--json", "--watch", "1"), ("show", "ffff", "--in", "small"),
     ("show", "ffff"), ("clean", "small"), ("clean", "nowhere", "--failed"),
     ("plan", "nowhere.yaml"), ("plan", "spec.yaml", "--only", "adm"),
     ("plan", "spec.yaml", "--shard", "3/2"), ("run", "spec.yaml", "--retry", "eror")],
)  # fmt: skip
def test_bad_input_is_reported_on_stderr_with_exit_code_2(made, arguments):
    """Nothing on stdout, no traceback."""
    done = bdhf(*arguments, code=2)

    assert done.stdout == ""
    assert done.stderr


def test_show_prints_markup_as_it_is(made):
    """Brackets in names and texts are not read as markup."""
    store, cells = made
    folder = write(store, cells[0], trace="File [/bold] [red]\n  odd \x1b[2J")
    moved = store.folder.rename("[bold]")

    printed = bdhf("show", cells[0].run_id[:6], "--in", moved).stdout

    assert printed.startswith(f"[bold]/runs/{folder.name}\n  cells ")
    assert "adam seed 0" in printed
    assert "  File [/bold] [red]\n    odd \N{REPLACEMENT CHARACTER}[2J" in printed


def test_clean_says_what_would_go_then_removes_it(made):
    """A dry run changes nothing; the real one removes what the dry one listed."""
    store, cells = made
    write(store, cells[0])
    folder = write(store, cells[1], Status.ERROR)

    dry = bdhf("clean", "small", "--failed", "--dry-run").stdout
    assert folder.exists()
    real = bdhf("clean", "small", "--failed").stdout

    assert not folder.exists()
    assert dry.splitlines()[:-1] == [f"{folder.name}: error: a reason"]
    for text in (dry, real):
        assert re.search(naming("1 run", "small"), text.splitlines()[-1])
    assert "0 runs" in bdhf("clean", "small", "--failed", "--foreign").stdout


def test_plan_as_json_is_json_and_warnings_go_elsewhere(made):
    """Power, arms, comparisons by target and costs; the cost of a skipped arm is null."""
    solvers = "grid: {arms.full_hf.solver: [{type: cg, max_iters: 5}, sample_space]}\nseeds:"
    hessian = ("partition: full", "partition: full, curvature: hessian")
    Path("spec.yaml").write_text(changed(hessian, ("seeds:", solvers)))

    done = bdhf("plan", "spec.yaml", "--json", "--cost")

    content = strict(done.stdout)
    assert content["power"] == {
        "tests": 2, "alpha": 0.05, "needed": 7, "seeds": 2, "powers": [], "coarse": []
    }  # fmt: skip
    skipped = [arm["label"] for arm in content["arms"] if arm["skip"]]
    assert len(skipped) == 1
    assert content["gradients_an_update"][skipped[0]] is None
    assert content["gradients_an_update"]["adam"] == 1
    assert content["excluded"] == []
    assert [entry["target"] for entry in content["comparisons"]] == 2 * ["val_loss ≤ 0.08"]
    assert {arm["seconds"] for arm in content["arms"]} == {None}
    assert content["seconds_left"] is None
    assert re.match("warning: " + naming("2 tests", 0.05, 7, 2), done.stderr)


def test_plan_reports_the_time_from_finished_runs(made):
    """Finished runs give the time of the others."""
    store, cells = made
    for cell in cells[:3]:
        write(store, cell)

    printed = bdhf("plan", "spec.yaml", "--out", "small", "--workers", "1").stdout
    content = strict(bdhf("plan", "spec.yaml", "--out", "small", "--workers", "1", "--json").stdout)

    (time,) = (line for line in printed.splitlines() if line.startswith("time: "))
    assert re.search(naming("30 s", "1 run", "finished runs"), time)
    assert printed.endswith("small: 6 runs, 3 done, 3 to do -> small\n")
    assert (content["seconds_left"], content["workers"]) == (30.0, 1)
    assert {arm["source"] for arm in content["arms"]} == {"finished runs"}


def test_plan_shows_a_part_and_what_is_set(made):
    """--only, --shard and --set change what is planned."""
    seeds = ("--set", "seeds.count=4")

    assert "small: 4 runs" in bdhf("plan", "spec.yaml", "--only", "adam", *seeds).stdout
    assert "small: 3 runs" in bdhf("plan", "spec.yaml", "--shard", "2/4", *seeds).stdout


@pytest.mark.slow
def test_run_stops_at_a_limit_and_continues(made):
    """A limit bounds the number of runs now."""
    only = ("--only", "adam", "--workers", "1")

    first = bdhf("run", "spec.yaml", "--out", "small", "--limit", "1", *only).stdout
    second = bdhf("run", "spec.yaml", "--out", "small", *only).stdout

    assert re.match(naming("2 runs", "0 done", "2 to do", "1 of"), first.splitlines()[0])
    assert second.startswith("small: 2 runs, 1 done, 1 to do -> small\n")


@pytest.mark.slow
def test_run_tries_again_what_is_asked_for(made):
    """A failed run is to do if --retry names its status, and is counted by its status otherwise."""
    store, cells = made
    write(store, cells[0], Status.OOM)
    write(store, cells[3])
    only = ("spec.yaml", "--out", "small", "--only", "adam", "--workers", "1")

    kept = bdhf("run", *only, code=1)
    again = bdhf("run", *only, "--retry", "oom")

    assert kept.stdout.startswith("small: 2 runs, 1 done, 1 oom, 0 to do -> small\n")
    assert kept.stderr.splitlines()[-1].startswith("1 oom: ")
    assert again.stdout.startswith("small: 2 runs, 1 done, 1 to do -> small\n")
    assert store.status(cells[0].run_id)["status"] == "done"


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_a_time_that_is_not_known_is_a_question_mark(seconds):
    """No traceback for a number that is not finite."""
    assert clock(seconds) == "?"

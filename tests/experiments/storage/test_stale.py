"""Stale runs: reported by `plan`, and kept or repeated by `run`."""

from __future__ import annotations

import json

import pytest

from bdhf.cli.stale import stale_lines
from bdhf.experiments.ablation import Ablation
from bdhf.experiments.parts import user_modules
from bdhf.experiments.parts.user_source import sources
from bdhf.experiments.plan.user_code import own_names
from bdhf.experiments.run.execute import Outcome
from bdhf.experiments.storage.claims import Claims
from bdhf.experiments.storage.stale import set_aside
from bdhf.records import Status
from bdhf.records.provenance.environment import hashes_in_words
from tests.commands import bdhf
from tests.experiments.specs import CHUNKS, changed
from tests.experiments.synthetic import CURVE

PART = "import {name}_helper\n" + CHUNKS


@pytest.fixture
def home(tmp_path, monkeypatch, request):
    """A spec with an own part in one arm, in the working directory; and the name of its modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(user_modules._BESIDE, "folders", [])
    name = f"stl{abs(hash(request.node.name))}"
    (tmp_path / "spec.yaml").write_text(
        changed(("partition: full", f"partition: {name}_part:Chunks"))
    )
    (tmp_path / f"{name}_part.py").write_text(PART.format(name=name))
    (tmp_path / f"{name}_helper.py").write_text("")
    return tmp_path, name


def opened(home):
    """The ablation of the spec there."""
    return Ablation.open(home / "spec.yaml", home / "out")


def write_run(store, run, *, status=Status.DONE, records=True):
    """Write a run with the code that lies there now, as if it had been made."""
    hashes = {m: s.digest for name in own_names(run) for m, s in sources(name).items()}
    env = {"cpu": "x"} | ({"own_code": hashes_in_words(hashes)} if hashes and records else {})
    store.write(run, Outcome(status, "a reason", CURVE), env, {"wall_seconds": 1.0})


def made(ablation, *, only=None, **how):
    """Write its runs, or some of them, and its tables."""
    ablation.store.begin(ablation.text, ablation.plan)
    for cell in ablation.cells:
        if only is None or cell.run_id in only:
            write_run(ablation.store, cell.run, **how)
    ablation.store.end()


@pytest.fixture
def quick(monkeypatch):
    """Runs that are made up with the code that lies there, and no report."""

    def run_all(todo, store, conditions, observer):
        for run in todo:
            write_run(store, run)

    monkeypatch.setattr("bdhf.experiments.ablation.run_all", run_all)
    monkeypatch.setattr("bdhf.cli.ablation.say_report", lambda folder, curves: None)


def stale_of(home):
    """By arm, the stale runs of the ablation there."""
    ablation = opened(home)
    return ablation.stale(ablation.cells, ablation.left(ablation.cells))


def test_unchanged_code_is_not_reported(home):
    """Nor is anything of arms without an own part."""
    folder, _ = home
    made(opened(folder))

    assert stale_of(folder) == ()
    assert "stale" not in bdhf("plan", "spec.yaml", "--out", "out", code=0).output


@pytest.mark.parametrize("module", ["part", "helper"])
def test_plan_reports_the_arm_its_part_and_the_file(home, module):
    """The module itself, or one that it imports; as JSON too, with the ids of the runs."""
    folder, name = home
    made(opened(folder))
    file = folder / f"{name}_{module}.py"
    file.write_text(file.read_text() + "\n# another line\n")

    said = bdhf("plan", "spec.yaml", "--out", "out", code=0).stdout
    (arm,) = json.loads(bdhf("plan", "spec.yaml", "--out", "out", "--json", code=0).stdout)["stale"]

    (line,) = stale_lines(stale_of(folder))
    assert f"stale: {line}" in said.splitlines()
    assert all(fact in line for fact in ("full_hf", "2 runs", f"{name}_part:Chunks", str(file)))
    assert arm["arm"] == "full_hf"
    assert arm["parts"] == [f"{name}_part:Chunks"]
    assert arm["files"] == [str(file)]
    assert set(arm["run_ids"]) == {c.run_id for c in opened(folder).cells if c.arm == "full_hf"}


def test_a_module_that_came_or_went_is_reported_too(home):
    """By its file where it has one, else by its name."""
    folder, name = home
    made(opened(folder))
    (folder / f"{name}_helper.py").unlink()
    (folder / f"{name}_new.py").write_text("")
    file = folder / f"{name}_part.py"
    file.write_text(file.read_text().replace(f"import {name}_helper", f"import {name}_new"))

    (arm,) = stale_of(folder)

    assert set(arm.files) == {f"{name}_helper (gone)", str(file), str(folder / f"{name}_new.py")}


@pytest.mark.parametrize(
    ("way", "expected"),
    [({"records": False}, 0), ({"only": ()}, 0), ({"status": Status.ERROR}, 2), ({}, 2)],
    ids=["of an older bdhf", "not run", "failed", "done"],
)
def test_runs_that_say_nothing_of_their_code_are_not_stale(home, way, expected):
    """Nor are runs that are to do anyway; failed runs would be kept."""
    folder, name = home
    made(opened(folder), **way)
    (folder / f"{name}_helper.py").write_text("x = 1")

    assert sum(len(arm.run_ids) for arm in stale_of(folder)) == expected


def test_a_run_that_is_tried_again_anyway_is_no_question(home):
    """`--retry` repeats it with the present code."""
    folder, name = home
    made(opened(folder), status=Status.ERROR)
    (folder / f"{name}_helper.py").write_text("x = 1")
    ablation = opened(folder)

    assert ablation.stale(ablation.cells, ablation.left(ablation.cells, "error")) == ()


def test_run_asks_what_becomes_of_them_and_changes_nothing(home):
    """Exit code 2, each arm on a line, then both answers."""
    folder, name = home
    made(opened(folder))
    (folder / f"{name}_helper.py").write_text("x = 1")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    lines = bdhf("run", "spec.yaml", "--out", "out", code=2).stderr.splitlines()

    assert lines[-2:-1] == stale_lines(stale_of(folder))
    assert "--stale keep" in lines[-1]
    assert "--stale rerun" in lines[-1]
    assert "out/stale" in lines[-1]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert "rerun" in bdhf("run", "spec.yaml", "--stale", "ask", code=2).output


@pytest.mark.usefixtures("quick")
def test_kept_ones_stay_as_they_are_and_are_reported(home):
    """The runs left are made, here none; the next `plan` still reports the stale ones."""
    folder, name = home
    made(opened(folder))
    (folder / f"{name}_helper.py").write_text("x = 1")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("out/runs/*/*")}

    said = bdhf("run", "spec.yaml", "--out", "out", "--stale", "keep", code=0).stderr

    assert [f"kept: {line}" for line in stale_lines(stale_of(folder))] == said.splitlines()[:1]
    assert {path: path.stat().st_mtime_ns for path in folder.glob("out/runs/*/*")} == before
    assert len(stale_of(folder)) == 1


@pytest.mark.usefixtures("quick")
def test_those_that_are_made_again_leave_the_old_ones_aside(home):
    """Up to --limit; the next command asks for the others again, and nothing is lost."""
    folder, name = home
    made(opened(folder))
    (folder / f"{name}_helper.py").write_text("x = 1")
    ids = sorted(c.run_id for c in opened(folder).cells if c.arm == "full_hf")
    old = {run_id: (folder / "out" / "runs" / run_id / "env.json").read_text() for run_id in ids}
    rerun = ("run", "spec.yaml", "--out", "out", "--stale", "rerun")

    bdhf(*rerun, "--limit", "1", code=0)
    (left,) = stale_of(folder)
    bdhf(*rerun, code=0)
    said = bdhf("run", "spec.yaml", "--out", "out", code=0).stdout

    assert len(left.run_ids) == 1
    assert stale_of(folder) == ()
    assert "6 runs, 6 done, 0 to do" in said
    assert sorted(path.name for path in (folder / "out" / "stale").iterdir()) == [
        f"{run_id}.1" for run_id in ids
    ]
    for run_id in ids:
        kept = folder / "out" / "stale" / f"{run_id}.1" / "env.json"
        new = folder / "out" / "runs" / run_id / "env.json"
        assert kept.read_text() == old[run_id] != new.read_text()


def test_a_run_that_another_process_is_making_again_is_left_to_it(home):
    """A repeated run is not moved again, and no name in stale/ is used twice."""
    folder, name = home
    ablation = opened(folder)
    made(ablation)
    runs = [cell.run for cell in ablation.cells if cell.arm == "full_hf"]
    (folder / f"{name}_helper.py").write_text("x = 1")
    other = Claims(folder / "out")
    other.take(runs[0].run_id)

    first = set_aside(ablation.store, runs)
    other.close()
    made(ablation, only=[runs[1].run_id])
    second = set_aside(ablation.store, runs)
    (folder / f"{name}_helper.py").write_text("x = 2")
    third = set_aside(ablation.store, runs)

    ids = [run.run_id for run in runs]
    assert (first, second, third) == ([ids[1]], [ids[0]], [ids[1]])
    aside = sorted(path.name for path in ablation.store.aside.iterdir())
    assert aside == sorted([f"{ids[0]}.1", f"{ids[1]}.1", f"{ids[1]}.2"])

"""Folders that cannot be written or entered, or are gone: one line, and nothing is lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bdhf.experiments import ablation
from bdhf.records import Owner, Status, clock_of, collect, load
from bdhf.records.disk import temporary as temporary_names
from tests.commands import bdhf
from tests.experiments.specs import changed
from tests.experiments.synthetic import begun, claim, write
from tests.messages import naming
from tests.mutations import sums

NO_FIGURES = ("seeds: {count: 2}", "report: {figures: []}\nseeds: {count: 2}")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A folder with a finished run of every cell but one, with its spec; and its cells."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(changed(NO_FIGURES))
    store, cells = begun(tmp_path / "small", NO_FIGURES)
    for cell in cells[:5]:
        write(store, cell, Status.ERROR if cell is cells[1] else Status.DONE)
    return store, cells


@pytest.fixture(params=["EROFS", "EACCES"])
def read_only(request, monkeypatch):
    """Makes every write fail, because root may write in any folder."""

    def refused(*_):
        number = getattr(errno, request.param)
        raise OSError(number, os.strerror(number))

    def begin():
        monkeypatch.setattr(temporary_names, "_with_new_name", refused)
        return os.strerror(getattr(errno, request.param))

    return begin


@pytest.mark.parametrize("form", [(), ("--json",), ("--latex",)], ids=str)
def test_compare_answers_where_nothing_can_be_written(made, read_only, form):
    """The output is the same as elsewhere; a line names what was not written."""
    store, _ = made
    said = bdhf("compare", "small", *form).stdout
    for name in ("runs.parquet", "curves.parquet", "comparisons.parquet"):
        (store.folder / name).unlink()
    before, why = sums(store.folder), read_only()

    done = bdhf("compare", "small", *form)

    assert done.stdout == said
    (line,) = done.stderr.splitlines()
    assert line.startswith("small/comparisons.parquet: ")
    assert why in line
    assert sums(store.folder) == before


def test_report_says_its_verdicts_where_nothing_can_be_written(made, read_only):
    """Everything except the line with the path of the page."""
    store, _ = made
    said = bdhf("report", "small").stdout.splitlines()
    before, why = sums(store.folder), read_only()

    done = bdhf("report", "small")

    assert done.stdout.splitlines() == said[:-1]
    (line,) = done.stderr.splitlines()
    assert line.startswith("small/report.html: ")
    assert why in line
    assert sums(store.folder) == before


@pytest.mark.parametrize("command", [("status",), ("clean", "--failed", "--dry-run")], ids=str)
def test_what_only_looks_needs_no_rights(made, read_only, command):
    """The output is the same as elsewhere."""
    store, cells = made
    claim(store, cells[5], '{"host": "elsewhere", "pid": 7, "started": 17.0, "made": 1.5}')
    said = bdhf(command[0], "small", *command[1:]).stdout
    before = sums(store.folder)
    read_only()

    assert (
        bdhf(command[0], "small", *command[1:]).stdout.split(" for ")[0] == said.split(" for ")[0]
    )
    assert sums(store.folder) == before


@pytest.mark.parametrize("command", ["compare", "report"])
def test_a_full_disk_is_reported_as_such(made, monkeypatch, command):
    """An old page must not look like the new one."""

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    (line,) = bdhf(command, "small", code=2).stderr.splitlines()
    assert os.strerror(errno.ENOSPC) in line


@pytest.mark.parametrize("command", ["compare", "report", "run"])
@pytest.mark.parametrize("name", ["runs.parquet", "comparisons.parquet"])
def test_a_folder_in_the_place_of_a_table_is_reported(made, monkeypatch, command, name):
    """The message names the file; no run changes."""
    store, _ = made
    monkeypatch.setattr(ablation, "run_all", lambda *_: {})
    collect(store.folder)
    (store.folder / name).unlink(missing_ok=True)
    (store.folder / name).mkdir()
    before = sums(store.runs)
    arguments = ("spec.yaml", "--out", "small") if command == "run" else ("small",)

    (line,) = bdhf(command, *arguments, code=2).stderr.splitlines()[-1:]

    assert line.startswith(f"small/{name}: ")
    assert os.strerror(errno.EISDIR) in line
    assert sums(store.runs) == before


@pytest.mark.parametrize("name", ["plan.parquet", "plan.json", "spec.yaml"])
@pytest.mark.parametrize("command", ["status", "report", "plan", "run"])
def test_a_folder_in_the_place_of_what_was_asked_is_reported(made, monkeypatch, command, name):
    """A line if the command needs the file, and no traceback otherwise."""
    store, _ = made
    monkeypatch.setattr(ablation, "run_all", lambda *_: {})
    (store.folder / name).unlink()
    (store.folder / name).mkdir()
    spec = ("spec.yaml", "--out", "small")
    arguments = {"plan": spec, "run": spec}.get(command, ("small",))
    needed = {"status", "report", "run"} if name == "plan.parquet" else {"report", "run"}

    done = bdhf(command, *arguments, code=2 if command in needed else 0)

    assert (f"small/{name}: " in done.stderr) == (command in needed)


@pytest.mark.parametrize("name", ["status.json", "curve.parquet", "env.json", "spec.yaml"])
def test_a_folder_in_the_place_of_a_file_of_a_run_is_torn(made, name):
    """The run is to do again, and the others stay."""
    store, cells = made
    run = store.runs / cells[0].run_id
    (run / name).unlink()
    (run / name).mkdir()

    said = bdhf("status", "small").stdout

    assert f"({run.name}): torn: {name}: Is a directory" in said
    assert "holds" not in bdhf("show", run).stdout
    bdhf("report", "small")
    assert cells[0].run_id in store.left(cells)


@pytest.fixture
def locked(made, monkeypatch):
    """The folder of a run without permission to enter: mode 000, for all but root."""
    store, cells = made
    run = store.runs / cells[0].run_id

    def refusing(method):
        def refused(path, *arguments, **settings):
            if run in path.absolute().parents:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return method(path, *arguments, **settings)

        return refused

    for name in ("read_bytes", "read_text", "is_file", "exists", "stat", "open"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
    return run


@pytest.mark.parametrize("command", ["status", "show"])
def test_a_run_that_may_not_be_entered_is_unreadable(locked, command):
    """It may be whole, and the command gives the reason why this is unknown."""
    said = bdhf(command, locked if command == "show" else "small").output

    assert os.strerror(errno.EACCES) in said


@pytest.mark.parametrize("command", ["compare", "report"])
def test_a_run_that_may_not_be_entered_is_in_no_table(locked, command):
    """The tables give the reason; it is neither removed nor repeated."""
    bdhf(command, "small")

    runs = load("small").runs.set_index("run_id")
    assert runs["reason"][locked.name].startswith("unreadable: ")
    assert locked.name not in bdhf("clean", "small", "--failed", "--dry-run").output


def test_a_folder_that_may_not_be_searched_is_a_line(made, monkeypatch):
    """For every command: the error of the system, and the path."""

    def refused(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "exists", refused)

    for command in (("status", "small"), ("report", "small"), ("compare", "small")):
        (line,) = bdhf(*command, code=2).stderr.splitlines()
        assert line.endswith("Permission denied")
        assert line.startswith("small")


def test_a_results_folder_that_goes_during_a_run_is_a_line(made, monkeypatch):
    """Not sixty lines; the same command creates it again."""
    store, _ = made

    def vanish(todo, there, conditions, observer):
        shutil.rmtree(there.folder)
        with there.writing():
            clock_of(there.runs)

    monkeypatch.setattr(ablation, "run_all", vanish)

    done = bdhf("run", "spec.yaml", "--out", "small", code=2)

    line = done.stderr.splitlines()[-1]
    assert line.startswith("small: ")
    assert os.strerror(errno.ENOENT) in line
    assert not store.folder.exists()


@pytest.mark.parametrize("command", ["compare", "report"])
def test_what_a_killed_command_left_is_swept_by_the_next(made, command):
    """With the tables and the page; files of running processes stay."""
    store, _ = made
    dead = store.folder / f".tmp-{replace(Owner.here(), pid=2**22 + 1)}~abc"
    alive = store.folder / f".tmp-{Owner.here()}~abc"
    for path in (dead, alive):
        path.touch()

    bdhf(command, "small")

    assert not dead.exists()
    assert alive.exists()


def test_clean_sweeps_what_a_killed_clean_left(made):
    """A run that was renamed, but not removed."""
    store, _ = made
    dead = store.runs / f".tmp-{replace(Owner.here(), pid=2**22 + 1)}~abc"
    dead.mkdir()

    bdhf("clean", "small", "--failed")

    assert not dead.exists()


def test_whoever_waits_hears_for_whom_and_what_to_remove(made, capsys):
    """Claims of other machines by their files; a process of this machine is known to run."""
    from bdhf.cli.ablation import _say_waiting
    from bdhf.experiments.storage.claims import Claim

    store, cells = made
    here = Claim(cells[0].run_id, 0, Owner.here(), 1.5)
    there = Claim(cells[1].run_id, 2, Owner("lab-3", 71, 1.0), 1.5)

    _say_waiting(store.folder, (here,))
    _say_waiting(store.folder, (here, there))

    this = f"process {os.getpid()} on {Owner.here().host}"
    both = ", ".join(sorted([this, "process 71 on lab-3"]))
    first, second, what_to_do = capsys.readouterr().out.splitlines()
    assert re.search(naming(1, this), first)
    assert re.search(naming(2, both), second)
    assert f" {store.folder}/claims/{cells[1].run_id}.2 " in what_to_do


def test_a_report_is_still_held_against_files_that_were_changed(made):
    """Other commands refuse them; `verify --against` names the differences."""
    store, cells = made
    bdhf("report", "small")
    run = store.runs / cells[0].run_id
    curve = pd.read_parquet(run / "curve.parquet")
    curve.loc[1, "val_loss"] = 0.25
    curve.to_parquet(run / "curve.parquet", index=False)
    spec = store.folder / "spec.yaml"
    spec.write_text(spec.read_text().replace("name: small", "name: tiny"))

    bdhf("compare", "small", code=2)
    said = bdhf("verify", "small/report.html", "--against", "small", code=1).stdout

    for facts in (("name", "'small'", "'tiny'"), ("val_loss", "evaluation 1", "1.0", "0.25")):
        assert any(all(fact in line for fact in facts) for line in said.splitlines()), facts

"""Results on disk: whole or not at all."""

import errno
import json
import os
import re
import time
from dataclasses import asdict, replace

import pytest

import bdhf
from bdhf.experiments.engines import retry
from bdhf.experiments.run.execute import Outcome
from bdhf.experiments.spec.schema import Retry
from bdhf.experiments.storage.store import Store
from bdhf.optim import ALGORITHM_VERSION
from bdhf.records import (
    CURVE_COLUMNS,
    FAILED,
    STALE_SECONDS,
    InputError,
    Owner,
    Status,
    collect,
    planned,
    write_atomically,
)
from tests.experiments.specs import SMALL, cells, changed
from tests.experiments.specs import planned as planned_as
from tests.experiments.synthetic import CURVE, write


@pytest.fixture
def plan():
    """The cells of the small spec."""
    return cells()


@pytest.fixture
def store(tmp_path, plan):
    """A results folder that has begun."""
    store = Store(tmp_path / "results")
    store.begin(SMALL, planned_as())
    return store


def test_a_finished_run_is_not_done_again(store, plan):
    """What has a whole folder is finished; the rest is still to do, in the order of the plan."""
    write(store, plan[1])

    left = [run.run_id for run in store.unfinished(plan)]

    assert left == [cell.run.run_id for cell in plan if cell is not plan[1]]


def test_two_cells_with_one_run_are_one_thing_to_do(store, plan):
    """A run that serves two cells is listed once."""
    assert len(store.unfinished((*plan, plan[0]))) == len(plan)


@pytest.mark.parametrize("status", list(Status))
def test_only_missing_outcomes_are_tried_again(store, plan, status):
    """--retry repeats runs without an outcome; done, diverged and skipped stay."""
    write(store, plan[0], status)
    again = retry.again(Retry(), "all").wants

    assert plan[0].run not in store.unfinished(plan)
    assert (plan[0].run in store.unfinished(plan, again)) == (status in FAILED)


def test_a_retry_replaces_the_old_outcome(store, plan):
    """Only the newest outcome of a run is kept."""
    write(store, plan[0], Status.ERROR, trace="boom")
    write(store, plan[0], Status.DONE)

    assert store.status(plan[0].run.run_id)["status"] == "done"
    assert not (store.runs / plan[0].run.run_id / "traceback.txt").exists()


def test_a_torn_run_counts_as_not_run(store, plan):
    """A folder without a readable status is ignored, and the run is done again."""
    folder = store.runs / plan[0].run.run_id
    folder.mkdir()
    (folder / "status.json").write_text("{")

    assert plan[0].run in store.unfinished(plan)
    write(store, plan[0])
    assert plan[0].run not in store.unfinished(plan)


@pytest.mark.parametrize("first", [Status.DONE, Status.DIVERGED])
def test_an_outcome_is_never_replaced_by_a_failure(store, plan, first):
    """A worker that is killed after it wrote its run does not turn it into an error."""
    write(store, plan[0], first)
    write(store, plan[0], Status.ERROR, curve=CURVE.iloc[:0], trace="boom")

    assert store.status(plan[0].run.run_id)["status"] == first
    assert not list(store.runs.glob(".tmp-*"))


def test_a_status_without_its_curve_is_torn(store, plan):
    """A folder that lost its curve counts as not run, for the plan and for the tables."""
    write(store, plan[0])
    (store.runs / plan[0].run.run_id / "curve.parquet").unlink()

    collect(store.folder)

    assert plan[0].run in store.unfinished(plan)
    assert bdhf.load(store.folder).runs["status"].isna().all()


@pytest.mark.parametrize(
    ("name", "content"),
    [("curve.parquet", b""), ("curve.parquet", b"PAR1"), ("status.json", b"[]"),
     ("status.json", b'{"status": "odd"}')],
)  # fmt: skip
def test_a_run_with_a_torn_file_is_run_again(store, plan, name, content):
    """Whatever is torn, the rest of the ablation is read and the run is done again."""
    write(store, plan[0])
    (store.runs / plan[0].run.run_id / name).write_bytes(content)

    collect(store.folder)

    assert plan[0].run in store.unfinished(plan)
    assert bdhf.load(store.folder).runs["status"].isna().all()
    write(store, plan[0])
    assert store.status(plan[0].run.run_id)["status"] == "done"


def test_a_torn_environment_is_left_out(store, plan):
    """A run without a readable env.json has no row, and no reader raises."""
    write(store, plan[0])
    write(store, plan[1])
    (store.runs / plan[0].run.run_id / "env.json").write_text("{")
    collect(store.folder)

    assert bdhf.load(store.folder).environments["run_id"].tolist() == [plan[1].run.run_id]


def test_a_torn_table_is_reported_in_words(store, plan):
    """The message names the torn table."""
    (store.folder / "plan.parquet").write_bytes(b"PAR1")

    with pytest.raises(InputError, match=r"plan\.parquet: "):
        planned(store.folder)


def test_columns_keep_their_types_when_a_run_has_no_curve(store, plan):
    """Counts are whole numbers in every table, missing or not."""
    write(store, plan[0])
    collect(store.folder)
    some = bdhf.load(store.folder).runs.dtypes.astype(str).to_dict()
    for cell in plan[1:]:
        write(store, cell)
    collect(store.folder)

    whole = bdhf.load(store.folder).runs.dtypes.astype(str).to_dict()

    assert (some["update"], some["samples"]) == ("Int64", "Int64")
    assert whole == some


def test_tables_are_never_older_than_the_spec(store, plan):
    """When the spec changes, the tables follow at once, before any new run has ended."""
    for cell in plan:
        write(store, cell)
    collect(store.folder)
    changes = ("updates: 6", "updates: 600"), ("count: 2", "count: 3")
    longer = planned_as(*changes)

    store.begin(changed(*changes), longer)

    records = bdhf.load(store.folder)
    assert records.budget.limit == 600
    assert len(records.runs) == len(longer.cells)
    assert records.runs["status"].isna().all()
    assert len(records.curves) == 0


def test_a_results_folder_that_cannot_be_made_is_refused_in_words(tmp_path, plan):
    """A file instead of the folder is an InputError."""
    (tmp_path / "file").touch()

    with pytest.raises(InputError, match=re.escape(str(tmp_path / "file"))):
        Store(tmp_path / "file").begin(SMALL, planned_as())


def test_a_run_that_cannot_be_written_leaves_nothing(store, plan):
    """When writing fails half-way, neither the run nor a temporary folder is there."""
    with pytest.raises(AttributeError):
        store.write(plan[0].run, Outcome(Status.DONE, "", None), {}, {})

    assert list(store.runs.iterdir()) == []


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO"])
def test_a_disk_that_refuses_is_reported_in_one_line_and_harms_nothing(
    store, plan, monkeypatch, number
):
    """The folder and the error of the system; an existing run stays as it was."""
    write(store, plan[0], Status.ERROR)
    before = {path: path.stat().st_mtime_ns for path in store.runs.rglob("*")}
    said = os.strerror(getattr(errno, number))

    def refused(*_, **__):
        raise OSError(getattr(errno, number), said)

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(InputError) as told:
        write(store, plan[0])

    (line,) = told.value.lines
    assert line.startswith(f"{store.folder}: ")
    assert said in line
    assert {path: path.stat().st_mtime_ns for path in store.runs.rglob("*")} == before


def test_what_a_dead_process_held_and_saved_is_let_go(store, plan):
    """A finished run needs no claim and no checkpoint; an unfinished one keeps its checkpoint."""
    gone = replace(Owner.here(), pid=2**22 + 1)
    (store.folder / "claims").mkdir(exist_ok=True)
    claim = store.folder / "claims" / f"{plan[0].run_id}.0"
    claim.write_text(json.dumps({**asdict(gone), "made": 1.5}))
    store.checkpoints.mkdir()
    saved = [store.checkpoints / f"{cell.run_id}.pt" for cell in plan[:2]]
    for path in saved:
        path.touch()
    write(store, plan[0])

    store.end()

    assert not claim.exists()
    assert [path.exists() for path in saved] == [False, True]


def test_leftovers_of_dead_processes_are_swept(store, plan):
    """Half-written folders are removed when their process has ended, and stay while it runs."""
    me = Owner.here()
    dead = store.runs / f".tmp-{replace(me, pid=2**22 + 1)}~abc"
    reused = store.runs / f".tmp-{replace(me, started=me.started - 9, ticks=me.ticks - 900)}~abc"
    alive = store.runs / f".tmp-{me}~abc"
    elsewhere = store.runs / ".tmp-another-host~1~17~abc"
    silent = store.runs / ".tmp-another-host~2~17~abc"
    for folder in (dead, reused, alive, elsewhere, silent):
        folder.mkdir()
    long_ago = time.time() - 2 * STALE_SECONDS
    os.utime(silent, (long_ago, long_ago))

    store.begin(SMALL, planned_as())

    assert set(store.runs.iterdir()) == {alive, elsewhere}


def test_collected_tables_hold_every_cell_of_the_plan(store, plan):
    """Finished, failed and missing cells are rows; curves are those of the finished ones."""
    write(store, plan[0], curve=CURVE.assign(val_squared_error=CURVE["val_loss"]))
    write(store, plan[1], Status.ERROR, curve=CURVE.iloc[:0], trace="boom")
    collect(store.folder)

    records = bdhf.load(store.folder)

    assert len(records.runs) == len(plan)
    assert records.runs["status"].tolist()[:2] == ["done", "error"]
    assert records.runs["status"].isna().sum() == len(plan) - 2
    assert records.runs.loc[0, "val_squared_error"] == 2.0
    assert records.curves["run_id"].unique().tolist() == [plan[0].run.run_id]
    assert list(records.curves.columns[:4]) == ["arm", "seed", "run_id", "update"]
    assert records.arms == ("adam", "full_hf", "block_hf")
    assert records.spec_text == SMALL
    assert records.environments["cpu"].tolist() == ["x", "x"]


def test_an_ablation_without_any_run_collects_too(store, plan):
    """Tables of nothing have the columns of something."""
    collect(store.folder)

    records = bdhf.load(store.folder)

    assert list(records.curves.columns) == ["arm", "seed", "run_id", *CURVE_COLUMNS]
    assert len(records.curves) == 0


def test_planned_reads_the_disk_as_it_is(store, plan):
    """Status needs no collected tables: it reads the runs themselves."""
    write(store, plan[2], Status.DIVERGED)

    cells = planned(store.folder)

    assert cells["status"].dropna().tolist() == ["diverged"]
    assert len(cells) == len(plan)


def test_folders_without_results_are_refused_in_words(tmp_path):
    """Neither reader raises a traceback at a folder that is no ablation."""
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        bdhf.load(tmp_path)
    with pytest.raises(InputError, match=r"plan\.parquet"):
        planned(tmp_path)


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    """The file is the old one or the new one, and no temporary file stays."""
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def broken(*_):
        raise OSError("planted")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="planted"):
        write_atomically(path, b"new")

    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_status_files_are_plain_json(store, plan):
    """A run's folder can be read without bdhf."""
    write(store, plan[0])
    folder = store.runs / plan[0].run.run_id

    assert json.loads((folder / "status.json").read_text())["reason"] == "a reason"
    assert json.loads((folder / "env.json").read_text()) == {"cpu": "x"}
    assert (folder / "spec.yaml").read_text().startswith(f"algorithm: {ALGORITHM_VERSION}\n")

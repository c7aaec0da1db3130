"""Removing runs: those requested, and nothing else."""

import subprocess
import sys

import pytest

import bdhf
from bdhf.experiments.storage import clean as storage_clean
from bdhf.experiments.storage.claims import Claims
from bdhf.experiments.storage.clean import Doomed, removable, remove
from bdhf.records import InputError, Status
from tests.experiments.synthetic import begun, write

UNPLANNED = "f" * 16
ALL = Doomed(failed=True, unplanned=True)


@pytest.fixture
def made(tmp_path):
    """A folder that has begun, and the six cells of its plan."""
    return begun(tmp_path / "results")


def clean(store, doomed):
    """Remove everything that may be removed."""
    return remove(store.folder, removable(store.folder, doomed), doomed)


@pytest.mark.parametrize("status", list(Status))
def test_failed_is_error_oom_and_timeout(made, status):
    """Outcomes stay, also diverged ones."""
    store, cells = made
    folder = write(store, cells[0], status)

    gone = clean(store, ALL)

    assert (gone == [cells[0].run_id]) == (status in (Status.ERROR, Status.OOM, Status.TIMEOUT))
    assert folder.exists() != bool(gone)


def test_torn_runs_count_as_failed(made):
    """A folder without its curve is removed with the failed runs only."""
    store, cells = made
    (write(store, cells[0]) / "curve.parquet").unlink()

    assert removable(store.folder, Doomed(unplanned=True)) == {}
    assert removable(store.folder, Doomed(failed=True)) == {
        cells[0].run_id: "torn: curve.parquet: No such file or directory"
    }
    assert clean(store, Doomed(failed=True)) == [cells[0].run_id]


def test_runs_of_a_newer_version_are_not_torn(made):
    """What this version cannot read may be whole."""
    store, cells = made
    (write(store, cells[0]) / "status.json").write_text('{"status": "done", "records": 99}')

    assert removable(store.folder, Doomed(failed=True)) == {}


def test_unplanned_runs_are_those_that_are_not_in_the_plan(made):
    """A done run is removed if it is not in the plan, and only on request."""
    store, cells = made
    write(store, cells[0])
    unplanned = write(store, cells[1]).rename(store.runs / UNPLANNED)
    (unplanned / "status.json").write_text('{"status": "done"}')  # as older versions wrote it

    assert removable(store.folder, Doomed(failed=True)) == {}
    assert clean(store, Doomed(unplanned=True)) == [UNPLANNED]
    assert [path.name for path in store.runs.iterdir()] == [cells[0].run_id]


def test_what_is_no_run_stays(made, tmp_path):
    """Files, folders with other names and links to elsewhere belong to the user."""
    store, cells = made
    elsewhere = write(store, cells[0], Status.ERROR).rename(tmp_path / "elsewhere")
    (store.runs / UNPLANNED).symlink_to(elsewhere)
    (store.runs / ("e" * 16)).touch()
    (store.runs / "backup").mkdir()
    before = {path.name for path in store.runs.iterdir()}

    assert removable(store.folder, ALL) == {}
    assert remove(store.folder, before, ALL) == []
    assert {path.name for path in store.runs.iterdir()} == before
    assert (elsewhere / "status.json").exists()


def test_a_run_that_is_under_way_stays(made):
    """A failed run that another process tries again is not touched."""
    store, cells = made
    folder = write(store, cells[0], Status.ERROR)
    claims = Claims(store.folder)
    claims.take(cells[0].run_id)

    listed = removable(store.folder, ALL)
    gone = remove(store.folder, [cells[0].run_id], ALL)
    claims.close()

    assert (listed, gone) == ({}, [])
    assert folder.exists()


def test_a_run_that_has_succeeded_since_it_was_listed_stays(made):
    """A run that failed when it was listed, and is done now, is checked again."""
    store, cells = made
    folder = write(store, cells[0], Status.ERROR)
    listed = removable(store.folder, ALL)
    write(store, cells[0], Status.DONE)

    assert remove(store.folder, listed, ALL) == []
    assert store.status(folder.name)["status"] == "done"


def test_the_claim_of_a_process_that_has_died_is_no_hindrance(made):
    """The run of a killed process can be removed, with its claim."""
    store, cells = made
    write(store, cells[0], Status.ERROR)
    script = (
        "import sys, os, pathlib; from bdhf.experiments.storage.claims import Claims;"
        "Claims(pathlib.Path(sys.argv[1])).take(sys.argv[2]); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, store.folder, cells[0].run_id], check=True)

    assert clean(store, ALL) == [cells[0].run_id]
    assert list((store.folder / "claims").iterdir()) == []


def test_the_tables_follow_and_nothing_temporary_stays(made):
    """A removed run is one that has not been run."""
    store, cells = made
    for cell, status in zip(cells, (Status.DONE, Status.ERROR), strict=False):
        write(store, cell, status)

    clean(store, ALL)

    assert bdhf.load(store.folder).runs["status"].dropna().tolist() == ["done"]
    assert [path.name for path in store.runs.iterdir()] == [cells[0].run_id]
    assert cells[1].run in store.unfinished(cells)


def test_a_folder_that_cannot_be_written_is_reported_in_words(made, monkeypatch):
    """No traceback, and no claim is left."""
    store, cells = made
    write(store, cells[0], Status.ERROR)

    def read_only(_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(storage_clean, "temporary_folder", read_only)

    with pytest.raises(InputError, match="Read-only file system"):
        clean(store, ALL)
    assert list((store.folder / "claims").iterdir()) == []


def test_a_folder_without_a_plan_is_refused(tmp_path):
    """Without a plan every run would be unplanned: nothing is removed."""
    (tmp_path / "runs" / UNPLANNED).mkdir(parents=True)

    with pytest.raises(InputError, match=r"plan\.parquet"):
        removable(tmp_path, ALL)

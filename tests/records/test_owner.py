"""Owners of files on disk: a running process stays the owner when the clock is set."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from bdhf.experiments.storage.claims import Claims, living
from bdhf.records import STALE_SECONDS, Owner, Status, clock_of, remove_leftovers, write_atomically
from bdhf.records.disk.temporary import temporary_file, temporary_folder
from tests.commands import bdhf
from tests.experiments.synthetic import begun, claim, write

ELSEWHERE = Owner("another-host", 7, 17.0)


@pytest.fixture
def peer():
    """Another process of this machine, by its owner."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield Owner.of(process.pid)
    process.kill()
    process.wait()
    process.stdin.close()


@pytest.fixture(params=[-3600.0, -3.0, 3.0, 3600.0])
def stepped(request, peer, monkeypatch):
    """The other process, after the clock that gives its start was set by so many seconds."""
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda p: create_time(p) + request.param)
    return peer


def test_setting_the_clock_takes_nothing_from_a_running_process(tmp_path, stepped):
    """It keeps its claim and its incomplete files."""
    store, cells = begun(tmp_path / "results")
    content = {"host": stepped.host, "pid": stepped.pid, "started": stepped.started,
               "ticks": stepped.ticks, "made": 1.5}  # fmt: skip
    claim(store, cells[0], json.dumps(content))
    writing = store.runs / f".tmp-{stepped}~abc"
    writing.mkdir()

    remove_leftovers((store.runs,))

    assert not Owner.parse(str(stepped)).is_gone
    assert Claims(store.folder).take(cells[0].run_id) is None
    assert [held.owner for held in living(store.folder)] == [stepped]
    assert writing.exists()


def test_a_number_that_is_another_process_now_is_no_owner(peer):
    """Ticks decide, or the clock for files of older versions without ticks."""
    assert not peer.is_gone
    assert replace(peer, ticks=peer.ticks - 1).is_gone
    assert not replace(peer, ticks=None).is_gone
    assert replace(peer, ticks=None, started=peer.started - 9).is_gone
    assert replace(peer, pid=2**22 + 1).is_gone


def test_without_ticks_the_clock_decides(peer, monkeypatch):
    """On systems without /proc."""
    monkeypatch.setattr("bdhf.records.disk.owner._state", lambda pid: None)

    owner = Owner.of(peer.pid)

    assert owner.ticks is None
    assert not owner.is_gone
    assert replace(owner, started=owner.started - 9).is_gone


def test_a_process_of_another_user_that_is_hidden_is_not_gone(peer, monkeypatch):
    """With `hidepid` its folder in /proc is hidden."""

    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    def hidden(pid):
        raise psutil.NoSuchProcess(pid)

    monkeypatch.setattr("bdhf.records.disk.owner._state", lambda pid: None)
    monkeypatch.setattr(psutil, "Process", hidden)
    monkeypatch.setattr(os, "kill", refused)

    assert not peer.is_gone


@pytest.mark.parametrize("owner", [ELSEWHERE, replace(ELSEWHERE, ticks=5)])
def test_an_owner_is_read_as_it_was_written(owner):
    """With ticks and without, from text and from JSON; in the name of a file too."""
    assert Owner.parse(str(owner)) == owner
    assert Owner.read(json.loads(json.dumps(vars(owner)))) == owner


@pytest.mark.parametrize(
    "text", ["", "a~1", "a~0~1", "a~99999999999~1", "a~1~1~1~1", "a~-1~1", "a~x~1", "~1~1",
             "a~1~" + 400 * "9", "a~٣~1"],
)  # fmt: skip
def test_what_names_no_process_is_no_owner(text):
    """Nor is a number that no process can have."""
    assert Owner.parse(text) is None


#: Invalid contents of a claim.
ODD = [
    {"pid": "x"}, {"pid": 1.5}, {"pid": -5}, {"pid": 0}, {"pid": True}, {"pid": 10**30},
    {"started": None}, {"started": 10**400}, {"ticks": "x"}, {"host": 3}, {"made": "x"},
    {"made": 10**400}, {"more": 1}, [],
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_a_claim_of_other_types_is_one_of_a_process_that_is_not_known(tmp_path, odd):
    """Commands that read claims list it; after a long silence it is taken over."""
    store, cells = begun(tmp_path / "small")
    write(store, cells[1], Status.ERROR)
    me = Owner.here()
    whole = {"host": me.host, "pid": me.pid, "started": me.started, "made": 1.5}
    claim(store, cells[0], json.dumps({**whole, **odd} if isinstance(odd, dict) else odd))

    printed = bdhf("status", store.folder).stdout
    bdhf("clean", store.folder, "--failed", "--dry-run")

    assert f"({cells[0].run_id}): " in printed
    assert Claims(store.folder).take(cells[0].run_id) is None
    os.utime(store.folder / "claims" / f"{cells[0].run_id}.0", (1.0, 1.0))
    assert Claims(store.folder).take(cells[0].run_id).generation == 1


@pytest.mark.parametrize("generation", ["007", "٣", "1x"])
def test_a_name_that_no_claim_has_is_none(tmp_path, generation):
    """A file with another name reserves no run."""
    store, cells = begun(tmp_path / "small")
    claim(store, cells[0], "{")
    path = store.folder / "claims" / f"{cells[0].run_id}.0"
    path.rename(path.with_name(f"{cells[0].run_id}.{generation}"))

    assert living(store.folder) == ()


@pytest.mark.parametrize("ahead", [2 * STALE_SECONDS, 86400.0 * 365])
def test_what_is_dated_ahead_goes_stale_too(tmp_path, ahead):
    """The clock of the file server was set back: a running process updates its claim after that."""
    store, cells = begun(tmp_path / "small")
    content = {"host": "another-host", "pid": 7, "started": 17.0, "made": 1.5}
    claim(store, cells[0], json.dumps(content))
    path = store.folder / "claims" / f"{cells[0].run_id}.0"
    left = store.runs / f".tmp-{ELSEWHERE}~abc"
    left.mkdir()
    for dated in (path, left):
        os.utime(dated, (time.time() + ahead,) * 2)

    remove_leftovers((store.runs,))

    assert not left.exists()
    assert living(store.folder) == ()
    assert Claims(store.folder).take(cells[0].run_id).generation == 1


@pytest.mark.parametrize("ahead", [0.0, STALE_SECONDS / 2])
def test_what_is_dated_a_little_ahead_is_held(tmp_path, ahead):
    """Two clocks may differ by that much."""
    store, cells = begun(tmp_path / "small")
    content = {"host": "another-host", "pid": 7, "started": 17.0, "made": 1.5}
    claim(store, cells[0], json.dumps(content))
    os.utime(store.folder / "claims" / f"{cells[0].run_id}.0", (time.time() + ahead,) * 2)

    assert len(living(store.folder)) == 1


@pytest.fixture
def umask():
    """Set the umask for a test."""
    before = os.umask(0)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022, 0o002])
def test_files_and_folders_have_the_permissions_of_the_umask(tmp_path, umask, mask):
    """Files of runs, ablations and claims, and incomplete files."""
    umask(mask)
    store, cells = begun(tmp_path / "results")
    write(store, cells[0], trace="boom")
    claims = Claims(store.folder)
    claims.take(cells[1].run_id)
    write_atomically(tmp_path / "new" / "file", b"")
    os.close(temporary_file(tmp_path / "new")[0])
    temporary_folder(tmp_path / "new")

    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    claims.close()

    assert len(modes) > 12
    for path, mode in modes.items():
        assert oct(mode) == oct((0o777 if path.is_dir() else 0o666) & ~mask), path


def test_leftovers_of_another_user_are_removed_by_a_process_that_may(tmp_path, monkeypatch):
    """A process that may not delete the replaced run leaves that to a later one."""
    store, cells = begun(tmp_path / "results")
    write(store, cells[0], Status.ERROR)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        write(store, cells[0], Status.DONE)
    (left,) = store.runs.glob(".tmp-*")
    left.rename(left.with_name(f".tmp-{replace(Owner.here(), pid=2**22 + 1)}~abc"))

    store.end()

    assert [path.name for path in store.runs.iterdir()] == [cells[0].run_id]
    assert store.status(cells[0].run_id)["status"] == "done"


def test_writing_a_file_removes_leftovers_of_ended_processes(tmp_path):
    """Also for `report`, `compare` and `tune --write`, which start no ablation."""
    dead = tmp_path / f".tmp-{replace(Owner.here(), pid=2**22 + 1)}~abc"
    alive = tmp_path / f".tmp-{Owner.here()}~abc"
    for path in (dead, alive):
        path.touch()

    write_atomically(tmp_path / "file", b"")

    assert {path.name for path in tmp_path.iterdir()} == {alive.name, "file"}


def test_the_clock_of_a_folder_leaves_nothing(tmp_path):
    """The file that reads it is removed at once."""
    assert abs(clock_of(tmp_path) - time.time()) < 60
    assert list(tmp_path.iterdir()) == []

"""An early end of an ablation: by the user, by a scheduler, or on a full disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

import bdhf
from tests.experiments.specs import changed

pytestmark = pytest.mark.slow

LONGER = changed(("updates: 6", "updates: 40"), ("every_updates: 2", "every_updates: 10"))
COMMAND = [sys.executable, "-m", "bdhf.cli", "run", "spec.yaml", "--out", "out", "--workers", "1"]


@pytest.fixture
def running(tmp_path):
    """An ablation of six runs in a separate process group; one run has ended."""
    (tmp_path / "spec.yaml").write_text(LONGER)
    process = subprocess.Popen(
        COMMAND,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("runs/[0-9a-f]*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    yield process
    process.kill()
    process.communicate()


def check_what_is_left(folder) -> set[str]:
    """Every run is whole and done, the tables have them, and nothing temporary is left."""
    ended = {path.name for path in (folder / "runs").iterdir()}
    for run in ended:
        assert bdhf.records.run_status(folder, run)["status"] == "done"
    assert 1 <= len(ended) < 6
    assert not list(folder.rglob(".tmp-*"))
    assert not list((folder / "claims").iterdir())
    return ended


@pytest.mark.parametrize(
    "send",
    [
        lambda process: process.send_signal(signal.SIGINT),
        lambda process: process.send_signal(signal.SIGTERM),
        lambda process: os.killpg(process.pid, signal.SIGINT),
        lambda process: os.killpg(process.pid, signal.SIGTERM),
    ],
    ids=["interrupted", "terminated", "Ctrl-C in a terminal", "a scheduler that ends them all"],
)
def test_asked_to_end_it_keeps_what_has_finished_and_records_no_failure(tmp_path, running, send):
    """One line and exit code 130; workers end, claims are released, the tables are collected."""
    workers = psutil.Process(running.pid).children(recursive=True)
    send(running)
    _, errors = running.communicate(timeout=120)

    ended = check_what_is_left(tmp_path / "out")
    runs = bdhf.load(tmp_path / "out").runs
    assert running.returncode == 130
    assert errors.splitlines()[-1].startswith("Interrupted")
    assert "Traceback" not in errors
    assert set(runs.loc[runs["status"].notna(), "run_id"]) == ended
    assert psutil.wait_procs(workers, timeout=30)[1] == []


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="limits are set on Linux only")
@pytest.mark.parametrize("whose", ["engine", "worker"])
def test_a_disk_that_takes_no_more_is_one_line_and_the_same_command_continues(
    tmp_path, running, whose
):
    """Files cannot grow: a claim, or an outcome, cannot be written. Nothing is torn."""
    engine = psutil.Process(running.pid)
    stopped = [engine] if whose == "engine" else engine.children()
    for process in stopped:
        process.rlimit(psutil.RLIMIT_FSIZE, (0, 0))
    _, errors = running.communicate(timeout=120)

    (line,) = (line for line in errors.splitlines() if not line.startswith("warning: "))
    assert running.returncode == 2
    assert line.startswith("out: ")
    assert os.strerror(errno.EFBIG) in line
    ended = check_what_is_left(tmp_path / "out")

    before = {run: changed_last(tmp_path, run) for run in ended}
    assert subprocess.run(COMMAND, cwd=tmp_path, check=False).returncode == 0
    assert bdhf.load(tmp_path / "out").runs["status"].tolist() == ["done"] * 6
    assert {run: changed_last(tmp_path, run) for run in ended} == before


def changed_last(home, run):
    """When the run was written."""
    return (home / "out" / "runs" / run / "status.json").stat().st_mtime_ns

"""Three processes on one results folder, killed twenty times: every run once, the same tables."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import bdhf
from bdhf.experiments.storage.claims import living
from tests.experiments.specs import changed, planned

pytestmark = pytest.mark.slow

CHANGES = (
    ("count: 2", "count: 8"),
    ("updates: 6", "updates: 20"),
    ("every_updates: 2", "every_updates: 10"),
)
KILLS = 20


class Process:
    """One `bdhf run` on the shared folder, restarted whenever it has ended."""

    def __init__(self, home: Path, out: str) -> None:
        self._home, self._out = home, out
        self.start()

    def start(self) -> None:
        """Start, or resume."""
        command = ["run", "spec.yaml", "--out", self._out, "--workers", "1"]
        with (self._home / "log").open("a") as log:
            self.running = subprocess.Popen(
                [sys.executable, "-m", "bdhf.cli", *command],
                cwd=self._home,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        return self.running.pid

    def kill(self) -> None:
        """SIGKILL it and start the next."""
        self.running.kill()
        self.running.wait()
        self.start()

    def keep_going(self) -> None:
        """Restart it if it has ended."""
        if self.running.poll() is not None:
            assert self.running.returncode == 0, (self._home / "log").read_text()
            self.start()

    def end(self) -> int:
        """Wait for its end; return its exit code."""
        return self.running.wait(timeout=240)


@pytest.fixture
def started():
    """Starts processes, and ends them."""
    processes: list[Process] = []

    def start(home: Path, out: str) -> Process:
        processes.append(Process(home, out))
        return processes[-1]

    yield start
    for process in processes:
        process.running.kill()
        process.running.wait()


def holders(results: Path) -> set[int]:
    """The processes that hold a claim."""
    return {claim.owner.pid for claim in living(results)}


def writers(results: Path) -> set[int]:
    """The holders whose run is being written, or has just been."""
    try:
        names = os.listdir(results / "runs")
    except FileNotFoundError:
        return set()
    writing = any(name.startswith(".tmp-") for name in names)
    return {c.owner.pid for c in living(results) if writing or c.run_id in names}


def victim(
    processes: list[Process], of: Callable[[Path], set[int]], results: Path, draw: random.Random
) -> Process:
    """Wait until some of the processes are in this phase; choose one of them."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        pids = of(results)
        matching = [process for process in processes if process.pid in pids]
        if matching:
            return draw.choice(matching)
        for process in processes:
            process.keep_going()
        time.sleep(0.002)
    return draw.choice(processes)  # none is in this phase any more when all is done


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The collected tables without the seconds."""
    records = bdhf.load(folder)
    return records.runs.drop(columns="seconds"), records.curves.drop(columns="seconds")


def test_killed_at_any_moment_every_run_is_there_once_with_the_same_bits(tmp_path, started):
    """Kills hit starting, claiming, training and writing; nothing is lost, doubled or left."""
    (tmp_path / "spec.yaml").write_text(changed(*CHANGES))
    results, draw, held = tmp_path / "shared", random.Random(3), 0
    ids = {cell.run_id for cell in planned(*CHANGES).cells}
    processes = [started(tmp_path, "shared") for _ in range(3)]
    for _ in range(KILLS):
        phase = draw.choice([None, holders, holders, writers])
        if phase is None:
            time.sleep(draw.uniform(0, 3))
            process = draw.choice(processes)
        else:
            process = victim(processes, phase, results, draw)
            time.sleep(draw.uniform(0, 0.3) if phase is holders else 0)
        held += process.pid in holders(results)
        process.kill()
    codes = [process.end() for process in processes]
    codes.append(started(tmp_path, "alone").end())

    assert codes == [0] * 4, (tmp_path / "log").read_text()
    assert held >= 5
    assert {path.name for path in (results / "runs").iterdir()} == ids
    assert len(ids) == 24
    assert bdhf.load(results).runs["status"].tolist() == ["done"] * 24
    for shared, undisturbed in zip(tables(results), tables(tmp_path / "alone"), strict=True):
        pd.testing.assert_frame_equal(shared, undisturbed, check_exact=True)
    assert not list(results.rglob(".tmp-*"))
    assert not list((results / "claims").iterdir())

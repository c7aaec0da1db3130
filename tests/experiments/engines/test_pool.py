"""The worker pool alone: processes in slots are started, supplied with jobs, replaced and ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

from bdhf.experiments.engines.ending import saved_first
from bdhf.experiments.engines.pool import EXITED, WorkerPool, WorkerSlot
from bdhf.experiments.engines.process import (
    ASKED_TO_END,
    FAULT,
    ExitStatus,
    Parent,
    WorkerProcess,
    WorkFunction,
)
from bdhf.records import InputError, Status

Heard = tuple[WorkerSlot[str], str, Any]


def echo(parent: Parent, greeting: str) -> None:
    """Send every job back, with a greeting and the process id."""
    for job in parent.jobs():
        parent.send("said", (f"{greeting} {job}", os.getpid()))


def do(parent: Parent) -> None:
    """Do the job."""
    for job in parent.jobs():
        parent.send("begun")
        if job == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif job == "raise":
            raise RuntimeError("planted")
        elif job == "fault":
            raise InputError(["a line", "another"])
        elif job == "save":
            with saved_first() as ending:
                ending.can_wait = True
                parent.send("can be saved")
                while not ending.is_asked:
                    time.sleep(0.01)
                parent.send("saved")
        elif job == "go on":
            while True:
                with suppress(KeyboardInterrupt):
                    time.sleep(60)


class Pools:
    """Starts pools, and ends their processes."""

    def __init__(self) -> None:
        self._pools: list[WorkerPool[str]] = []

    def start(self, count: int, work: WorkFunction, *arguments: object) -> WorkerPool[str]:
        """A pool with a number of workers."""
        pool = WorkerPool[str](lambda slot: WorkerProcess.start(work, *arguments))
        self._pools.append(pool)
        pool.start(count)
        return pool

    def close(self) -> None:
        """End all."""
        for pool in self._pools:
            pool.close()


@pytest.fixture
def pools() -> Iterator[Pools]:
    """A maker of pools."""
    made = Pools()
    yield made
    made.close()


def first_message(pool: WorkerPool[str], wanted: str) -> Heard:
    """Wait for a message of this kind."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for slot, kind, content in pool.messages(1.0):
            if kind == wanted:
                return slot, kind, content
    raise AssertionError(f"nobody said {wanted!r}")


@pytest.mark.parametrize(
    ("ended", "status", "fact"),
    [
        (ExitStatus(0), Status.ERROR, "exit code 0"),
        (ExitStatus(3), Status.ERROR, "exit code 3"),
        (ExitStatus(ASKED_TO_END), Status.ERROR, "SIGTERM"),
        (ExitStatus(-11), Status.ERROR, "signal 11 (Segmentation fault)"),
        (ExitStatus(-9), Status.ERROR, "signal 9 (Killed)"),
        (ExitStatus(-9, True), Status.OOM, "signal 9 (Killed)"),
    ],
)
def test_how_a_worker_ended_is_reported_in_words(
    ended: ExitStatus, status: Status, fact: str
) -> None:
    """By its exit code or its signal; out of memory is a status of its own."""
    assert fact in str(ended)
    assert ("memory" in str(ended)) == ended.is_out_of_memory
    assert ended.status is status


@pytest.mark.slow
def test_every_slot_has_a_process_that_does_one_job_after_another(pools: Pools) -> None:
    """A message comes with the slot of its worker, and a slot without a job is free."""
    pool = pools.start(2, echo, "hello")
    said = dict[int, list[str]]()
    for job in ("one", "two"):
        for slot in pool.free:
            pool.give(slot, f"{job} {slot.number}")
        while pool.busy:
            slot, _, (line, pid) = first_message(pool, "said")
            said.setdefault(pid, []).append(line)
            slot.job = None

    assert sorted(said.values()) == [[f"hello {job} {i}" for job in ("one", "two")] for i in (0, 1)]
    assert list(pool.messages()) == []


@pytest.mark.slow
def test_a_worker_that_has_ended_is_replaced_up_to_a_limit(pools: Pools) -> None:
    """Its job is restarted up to the limit; then the slot can have another job."""
    pool = pools.start(1, do)
    (slot,) = pool.slots
    pool.give(slot, "die")
    again = list[bool]()
    while not again or again[-1]:
        _, _, ended = first_message(pool, EXITED)
        assert ended.code == -signal.SIGKILL
        again.append(pool.retry(slot, 1))

    slot.job = None
    pool.give(slot, "save")

    assert again == [True, False]
    assert slot.ends == 0
    assert first_message(pool, "can be saved")[0] is slot


@pytest.mark.slow
def test_an_idle_worker_that_has_died_is_replaced_with_the_next_job(pools: Pools) -> None:
    """The pool does not read from it before."""
    pool = pools.start(1, echo, "hello")
    (slot,) = pool.slots
    dead = slot.worker.process
    dead.kill()
    dead.join()
    pool.give(slot, "job")

    _, _, (line, pid) = first_message(pool, "said")

    assert line == "hello job"
    assert pid != dead.pid


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "kind", "content"),
    [("fault", FAULT, ("a line", "another")), ("raise", EXITED, ExitStatus(1))],
)
def test_an_error_in_a_worker_is_a_fault_or_its_end(
    pools: Pools, job: str, kind: str, content: object, capfd: pytest.CaptureFixture[str]
) -> None:
    """An InputError arrives with its lines; any other error goes to stderr with its traceback."""
    pool = pools.start(1, do)
    pool.give(pool.slots[0], job)

    assert first_message(pool, kind)[2] == content
    assert ("RuntimeError: planted" in capfd.readouterr().err) == (job == "raise")


@pytest.mark.slow
@pytest.mark.parametrize("asked_twice", [False, True], ids=["once", "twice"])
def test_asked_to_end_a_worker_saves_first(pools: Pools, asked_twice: bool) -> None:
    """It exits with a special code after its run is saved; a second signal changes nothing."""
    pool = pools.start(1, do)
    pool.give(pool.slots[0], "save")
    slot, *_ = first_message(pool, "can be saved")
    process, begun = slot.worker.process, time.monotonic()
    if asked_twice:
        os.kill(process.pid or 0, signal.SIGTERM)
    os.kill(process.pid or 0, signal.SIGINT)  # as Ctrl-C in a terminal, which is for the parent
    pool.stop(pool.busy, 60)

    assert time.monotonic() - begun < 30
    assert [kind for _, kind, _ in pool.messages()] == ["saved"]
    process.join(30)  # it can be waited for a moment after its end is seen
    assert process.exitcode == ASKED_TO_END


@pytest.mark.slow
def test_a_worker_that_does_not_end_is_waited_for_so_long_and_killed(pools: Pools) -> None:
    """Workers without a signal are killed at once."""
    pool = pools.start(2, do)
    for slot in pool.slots:
        pool.give(slot, "go on")
    while not all(slot.has_reported for slot in pool.slots):
        first_message(pool, "begun")
    processes = [psutil.Process(slot.worker.process.pid) for slot in pool.slots]
    pool.stop(pool.slots[:1], 0.2)
    lived = [process.is_running() for process in processes]
    pool.close()

    assert lived == [True, True]
    assert psutil.wait_procs(processes, timeout=30)[1] == []

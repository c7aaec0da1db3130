"""Runs in worker processes of this machine; other processes and machines may share an ablation."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bdhf.experiments.engines.ending import SAVE_SECONDS, saving_line
from bdhf.experiments.engines.execution import now
from bdhf.experiments.engines.make_runs import ENDED, LOST, NOTE, ROW, Job, make_runs
from bdhf.experiments.engines.pool import EXITED, WorkerPool, WorkerSlot
from bdhf.experiments.engines.process import ASKED_TO_END, FAULT, ExitStatus, WorkerProcess
from bdhf.experiments.engines.queue import POLL_SECONDS, Queue
from bdhf.experiments.engines.retry import Again
from bdhf.experiments.observers.observer import Observer
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.plan.user_code import own_code
from bdhf.experiments.run.execute import Outcome
from bdhf.experiments.run.provenance import run_environment
from bdhf.experiments.spec.schema import Retry, Safety
from bdhf.experiments.storage.claims import Claim, Claims, holds
from bdhf.experiments.storage.store import Store
from bdhf.records import CURVE_COLUMNS, Status, StorageError

#: How often the run of a worker that another process terminated is restarted.
_MOST_RETRIES = 3


@dataclass(frozen=True)
class Conditions:
    """How runs are executed; nothing of it changes a result."""

    workers: int
    devices: tuple[str, ...] = ("cpu",)
    safety: Safety = Safety()  # noqa: RUF009 - frozen
    again: Again = Again(Retry())  # noqa: RUF009 - both are frozen
    waiting: Callable[[Sequence[Claim]], None] = lambda holders: None  # called once per wait
    note: Callable[[str, str], None] = lambda run_id, line: None  # for the user; "": no run


def default_workers(threads: int, devices: Sequence[str] = ("cpu",)) -> int:
    """One run per GPU, or cores of this process ÷ threads."""
    if any(device.startswith("cuda") for device in devices):
        return len(devices)
    usable = getattr(os, "sched_getaffinity", None)  # Linux only
    return max(1, (len(usable(0)) if usable else os.cpu_count() or 1) // threads)


def run_all(
    todo: Sequence[RunSpec], store: Store, conditions: Conditions, observer: Observer
) -> dict[str, Status]:
    """Execute every run, some at a time; return the status of those of this process, by id.

    Returns when all runs have an outcome, from whichever process. Raises StorageError, and drops
    the runs under way, if nothing can be written; an interrupt saves them first.
    """
    claims = Claims(store.folder)
    engine = _Engine(store, claims, conditions, observer)
    try:
        with store.writing():
            return engine.run(Queue(todo, store, claims, conditions.again), len(todo))
    except KeyboardInterrupt:
        engine.save()
        raise
    finally:
        engine.close()
        claims.close()


class _Engine:
    """The runs of a queue, in a pool of worker processes."""

    def __init__(
        self, store: Store, claims: Claims, conditions: Conditions, observer: Observer
    ) -> None:
        self._store, self._claims = store, claims
        self._conditions, self._observer = conditions, observer
        self._pool = WorkerPool[Job](lambda slot: WorkerProcess.start(make_runs, store.folder))
        self._statuses: dict[str, Status] = {}
        self._has_waited = False

    def run(self, queue: Queue, total: int) -> dict[str, Status]:
        """Work until the queue is empty."""
        self._pool.start(min(self._conditions.workers, total))
        while True:
            self._fill(queue)
            if not self._pool.busy and not len(queue):
                return self._statuses
            if not self._pool.busy:
                self._wait(queue)
            looks_again = self._pool.free and len(queue)
            for slot, kind, content in self._pool.messages(POLL_SECONDS if looks_again else None):
                self._take_in(slot, kind, content, queue)

    def _wait(self, queue: Queue) -> None:
        """Wait: all runs that are left are claimed by other processes, which may end early."""
        holders = queue.holders()
        if holders and not self._has_waited:
            self._conditions.waiting(holders)
            self._has_waited = True
        time.sleep(POLL_SECONDS)

    def save(self) -> None:
        """Let the workers save the runs under way, as far as the time is enough."""
        saves = self._conditions.safety.checkpoint_every is not None
        saving = [slot for slot in self._pool.busy if saves and slot.has_reported]
        if saving:
            runs = "a run that is" if len(saving) == 1 else f"{len(saving)} runs that are"
            self._conditions.note("", saving_line(runs))
        self._pool.stop(saving, SAVE_SECONDS)

    def close(self) -> None:
        """End all workers."""
        self._pool.close()

    def _fill(self, queue: Queue) -> None:
        """Give every free worker a run."""
        for slot in self._pool.free:
            taken = queue.take()
            if taken is None:
                continue
            (run, claim), devices = taken, self._conditions.devices
            device = devices[slot.number % len(devices)]
            self._pool.give(slot, Job(run, claim, device, self._conditions.safety))
            self._has_waited = False
            self._observer.started(run)

    def _take_in(self, slot: WorkerSlot[Job], kind: str, content: Any, queue: Queue) -> None:
        """Act on a message of the worker in a slot, or on its end."""
        job = slot.job
        if job is None:
            raise RuntimeError("message from a worker without a run")
        if kind == ROW:
            self._observer.evaluated(job.run, content)
            return
        if kind == NOTE:
            self._conditions.note(job.run.run_id, content)
            return
        if kind == FAULT:
            raise StorageError(content)
        if kind == EXITED:
            if content.code == ASKED_TO_END and self._pool.retry(slot, _MOST_RETRIES):
                return
            kind, content = self._record(job, content)
        slot.job = None
        queue.ended(job.run, job.claim)
        if kind == LOST:  # the process that took it over reports it
            return
        self._statuses[job.run.run_id] = Status(content[0])
        self._observer.finished(job.run, *content)

    def _record(self, job: Job, ended: ExitStatus) -> tuple[str, tuple[str, str] | None]:
        """Record the run of a worker that ended, unless it was written or lost before."""
        if not holds(self._store.folder, job.claim):
            return LOST, None
        run, status, reason = job.run, ended.status, str(ended)
        outcome = Outcome(status, reason, pd.DataFrame(columns=list(CURVE_COLUMNS)))
        env = run_environment("cpu", run.threads)  # this process uses no GPU
        env |= {"device": job.device} | own_code(run)
        self._store.write(run, outcome, env, {"finished": now()})
        written = self._store.status(run.run_id) or {"status": status, "reason": reason}
        return ENDED, (str(written["status"]), str(written["reason"]))

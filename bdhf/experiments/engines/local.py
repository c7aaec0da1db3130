"""Runs in worker processes of this machine, beside those of other processes and machines."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection

import pandas as pd

from bdhf.experiments.claims import Claim, Claims, holds
from bdhf.experiments.engines.queue import POLL_SECONDS, Queue
from bdhf.experiments.engines.worker import Job, Worker, now
from bdhf.experiments.observe import Observer
from bdhf.experiments.own_source import own_code
from bdhf.experiments.provenance import environment
from bdhf.experiments.retry import Again
from bdhf.experiments.run import Outcome
from bdhf.experiments.runspec import RunSpec
from bdhf.experiments.schema import Retry, Safety
from bdhf.experiments.store import Store
from bdhf.records import CURVE_COLUMNS, Status, StorageError

#: Seconds in which runs that are under way may save themselves when a person ends them; a
#: scheduler kills about half a minute after it has told to end.
SAVE_SECONDS = 20.0


@dataclass(frozen=True)
class Conditions:
    """Under which runs are made; none of them changes a result."""

    workers: int
    devices: tuple[str, ...] = ("cpu",)
    safety: Safety = Safety()  # noqa: RUF009 - frozen
    again: Again = Again(Retry())  # noqa: RUF009 - both are frozen
    waiting: Callable[[Sequence[Claim]], None] = lambda holders: None  # told once for each wait
    note: Callable[[str, str], None] = lambda run_id, line: None  # for a person; "": of no run


def default_workers(threads: int, devices: Sequence[str] = ("cpu",)) -> int:
    """As many runs at a time as there are GPUs, or as the cores of this process can carry."""
    if any(device.startswith("cuda") for device in devices):
        return len(devices)
    usable = getattr(os, "sched_getaffinity", None)  # Linux only
    return max(1, (len(usable(0)) if usable else os.cpu_count() or 1) // threads)


def run_all(
    todo: Sequence[RunSpec], store: Store, conditions: Conditions, observer: Observer
) -> dict[str, Status]:
    """Execute every run, some at a time; give the status of each that this process did, by id.

    It ends when all have an outcome, whoever made it. Raises StorageError where nothing can be
    written, and gives up what is under way; when it is interrupted, that is saved before.
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
    """A crew of workers, and what each does."""

    def __init__(
        self, store: Store, claims: Claims, conditions: Conditions, observer: Observer
    ) -> None:
        self._store, self._claims = store, claims
        self._conditions, self._observer = conditions, observer
        self._crew: list[Worker] = []
        self._statuses: dict[str, Status] = {}
        self._has_waited = False

    def run(self, queue: Queue, total: int) -> dict[str, Status]:
        """Work until the queue is empty."""
        for place in range(min(self._conditions.workers, total)):
            self._crew.append(self._hire(place))
        while True:
            self._employ(queue)
            busy = {worker.pipe: worker for worker in self._crew if worker.job}
            if not busy and not len(queue):
                return self._statuses
            if not busy:
                self._wait(queue)
            idle = len(busy) < len(self._crew) and len(queue)
            for pipe in connection.wait(list(busy), POLL_SECONDS if idle else None) if busy else ():
                self._hear(busy[pipe], queue)  # type: ignore[index]

    def _wait(self, queue: Queue) -> None:
        """Nothing is left but what other processes do, or leave when they die."""
        holders = queue.holders()
        if holders and not self._has_waited:
            self._conditions.waiting(holders)
            self._has_waited = True
        time.sleep(POLL_SECONDS)

    def save(self) -> None:
        """Have the runs that are under way saved, those that are quick enough.

        Nothing is read from the workers: an interrupt may have come in the midst of a message.
        """
        busy = [worker for worker in self._crew if worker.can_save]
        for worker in busy:
            worker.ask_to_stop()
        if busy:
            what = "a run that is" if len(busy) == 1 else f"{len(busy)} runs that are"
            self._conditions.note(
                "",
                f"interrupted: saving {what} under way, for {SAVE_SECONDS:g} seconds at most; once "
                "more ends at once",
            )
        left, until = {worker.process.sentinel for worker in busy}, time.monotonic() + SAVE_SECONDS
        while left and (seconds := until - time.monotonic()) > 0:
            left.difference_update(connection.wait(list(left), seconds))

    def close(self) -> None:
        """End all workers."""
        for worker in self._crew:
            worker.dismiss()

    def _hire(self, place: int) -> Worker:
        devices = self._conditions.devices
        return Worker.hire(self._store.folder, devices[place % len(devices)])

    def _employ(self, queue: Queue) -> None:
        """Give every worker that is free a run."""
        for place, worker in enumerate(self._crew):
            taken = queue.take() if worker.job is None else None
            if taken is None:
                continue
            if not worker.process.is_alive():
                worker = self._crew[place] = self._hire(place)
            run, claim = taken
            worker.assign(Job(run, claim, worker.device, self._conditions.safety))
            self._has_waited = False
            self._observer.started(run)

    def _hear(self, worker: Worker, queue: Queue) -> None:
        """Take in what a worker says, or that it has died."""
        job = worker.job
        if job is None:
            raise RuntimeError("a worker without a run has spoken")
        try:
            kind, content = worker.hear()
        except (EOFError, OSError):
            place = self._crew.index(worker)
            self._crew[place] = self._hire(place)
            kind, content = self._bury(worker, job)
        if kind == "row":
            self._observer.evaluated(job.run, content)
            return
        if kind == "note":
            self._conditions.note(job.run.run_id, content)
            return
        if kind == "unwritable":
            raise StorageError(content)
        worker.job = None
        queue.ended(job.run, job.claim)
        if kind == "lost":  # whoever has taken it over tells of it
            return
        self._statuses[job.run.run_id] = Status(content[0])
        self._observer.finished(job.run, *content)

    def _bury(self, worker: Worker, job: Job) -> tuple[str, tuple[str, str] | None]:
        """Record how a worker's death ended its run, unless it was written or lost before."""
        if not holds(self._store.folder, job.claim):
            return "lost", None
        run, (status, reason) = job.run, worker.cause_of_death()
        outcome = Outcome(status, reason, pd.DataFrame(columns=list(CURVE_COLUMNS)))
        env = environment("cpu", run.threads) | {"device": job.device}  # this process uses no GPU
        env |= own_code(run)
        self._store.write(run, outcome, env, {"finished": now()})
        written = self._store.status(run.run_id) or {"status": status, "reason": reason}
        return "ended", (str(written["status"]), str(written["reason"]))

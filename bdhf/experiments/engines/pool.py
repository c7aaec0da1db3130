"""A pool of worker processes: a number of slots, each with a worker and its job.

A worker that has ended is replaced in its slot. The owner of the pool decides about the job.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any, Generic, TypeVar

from bdhf.experiments.engines.process import WorkerProcess

_Job = TypeVar("_Job")

#: The kind of the event that a worker has ended during its job; the content is its ExitStatus.
EXITED = "worker exited"


@dataclass
class WorkerSlot(Generic[_Job]):
    """A slot of a pool: its worker process and the job of this worker."""

    number: int  # from 0
    worker: WorkerProcess
    job: _Job | None = None
    has_reported: bool = False  # its worker has sent a message on the job
    ends: int = 0  # workers that ended during this job


@dataclass
class WorkerPool(Generic[_Job]):
    """Worker processes that are started, supplied with jobs, read and ended together."""

    start_worker: Callable[[int], WorkerProcess]  # for the slot of a number
    slots: list[WorkerSlot[_Job]] = field(default_factory=list)

    def start(self, count: int) -> None:
        """Start a number of workers."""
        for number in range(count):
            self.slots.append(WorkerSlot(number, self.start_worker(number)))

    @property
    def busy(self) -> list[WorkerSlot[_Job]]:
        """The slots whose workers have a job."""
        return [slot for slot in self.slots if slot.job is not None]

    @property
    def free(self) -> list[WorkerSlot[_Job]]:
        """The slots whose workers have no job."""
        return [slot for slot in self.slots if slot.job is None]

    def give(self, slot: WorkerSlot[_Job], job: _Job) -> None:
        """Give a job to the worker of a free slot."""
        if not slot.worker.is_alive:
            slot.worker.kill()
            slot.worker = self.start_worker(slot.number)
        slot.job, slot.has_reported, slot.ends = job, False, 0
        slot.worker.send(job)

    def retry(self, slot: WorkerSlot[_Job], most: int) -> bool:
        """Restart the job of a worker that has ended, at most `most` times; False after these."""
        if slot.ends > most:
            return False
        slot.has_reported = False
        slot.worker.send(slot.job)
        return True

    def messages(self, seconds: float | None = None) -> Iterator[tuple[WorkerSlot[_Job], str, Any]]:
        """Wait for messages of workers, or the end of one, for so many seconds at most.

        Yields slot, kind and content. A worker that has ended is already replaced in its slot.
        """
        busy = {slot.worker.pipe: slot for slot in self.busy}
        for pipe in connection.wait(list(busy), seconds) if busy else ():
            slot = busy[pipe]  # type: ignore[index]
            try:
                kind, content = slot.worker.receive()
                slot.has_reported = True
            except (EOFError, OSError):
                kind, content = EXITED, slot.worker.exit_status()
                slot.worker = self.start_worker(slot.number)
                slot.ends += 1
            yield slot, kind, content

    def stop(self, slots: Collection[WorkerSlot[_Job]], seconds: float) -> None:
        """Send the workers of some slots a signal to end, and wait for so many seconds at most.

        Nothing is read from them, because the interrupt may have cut a message.
        """
        for slot in slots:
            slot.worker.ask_to_end()
        left = {slot.worker.process.sentinel for slot in slots}
        until = time.monotonic() + seconds
        while left and (seconds := until - time.monotonic()) > 0:
            left.difference_update(connection.wait(list(left), seconds))

    def close(self) -> None:
        """Kill all workers."""
        for slot in self.slots:
            slot.worker.kill()

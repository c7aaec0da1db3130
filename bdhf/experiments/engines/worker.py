"""A worker process: it does one run after the other, and writes each itself.

It ends when its parent does, however that ends. One that dies costs its run only.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch

from bdhf.experiments.beside import folders, look_in
from bdhf.experiments.checkpoint import Checkpoint, Interrupted
from bdhf.experiments.claims import Claim, holds, living
from bdhf.experiments.engines.interrupt import shielded
from bdhf.experiments.engines.safe_path import safe_path
from bdhf.experiments.own_source import own_code
from bdhf.experiments.provenance import environment
from bdhf.experiments.run import Outcome, execute
from bdhf.experiments.runspec import RunSpec
from bdhf.experiments.schema import CHECKPOINT_SECONDS, Safety
from bdhf.experiments.store import Store
from bdhf.records import InputError, Status

#: Seconds between two looks at who else is at work on this machine.
_LOOK_SECONDS = 5.0

#: Seconds between two looks at whether it shall stop.
_ASK_SECONDS = 0.05


@dataclass(frozen=True)
class Job:
    """One run as a worker is given it."""

    run: RunSpec
    claim: Claim
    device: str
    safety: Safety


@dataclass
class Worker:
    """A worker process as its parent sees it."""

    process: SpawnProcess
    pipe: Connection
    device: str
    stop: Connection  # whatever is sent asks it to save its run and end
    job: Job | None = None
    has_begun: bool = False  # its run has been evaluated, and may be saved after an update
    _memory_kills: int = 0  # of the kernel, when it was last heard

    @classmethod
    def hire(cls, folder: Path, device: str) -> Worker:
        """Start a process that waits for jobs."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        heard, stop = context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(theirs, heard, folder, folders()), daemon=True
        )
        with safe_path(), shielded():  # the child inherits both, from its first moment
            process.start()
        theirs.close()  # so that the death of the worker closes the pipe
        heard.close()
        return cls(process, ours, device, stop)

    def assign(self, job: Job) -> None:
        """Give it a run."""
        self.job, self.has_begun, self._memory_kills = job, False, _memory_kills()
        with suppress(OSError):  # it died before: the next read of the pipe says so
            self.pipe.send(job)

    def hear(self) -> tuple[str, Any]:
        """What it says, and of what kind that is. Raises EOFError or OSError when it has died."""
        kind, content = self.pipe.recv()
        self._memory_kills, self.has_begun = _memory_kills(), True
        return kind, content

    @property
    def can_save(self) -> bool:
        """Whether it has a run under way that may be saved between two updates."""
        saves = self.job is not None and self.job.safety.checkpoint_every is not None
        return saves and self.has_begun

    def ask_to_stop(self) -> None:
        """Have it save its run after the update that it is at, and end."""
        with suppress(OSError):  # it has died
            self.stop.send(None)

    def dismiss(self) -> None:
        """End it, whatever it does."""
        self.process.kill()  # what it was writing has a name that says so, and is swept
        self.process.join()
        self.pipe.close()
        self.stop.close()

    def cause_of_death(self) -> tuple[Status, str]:
        """How its process ended: out of memory only where the kernel is known to have said so."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            words = f"the worker process died with exit code {code}; its traceback went to stderr"
            return Status.ERROR, words
        words = f"the worker process died by signal {-code} ({signal.strsignal(-code)})"
        if code == -signal.SIGKILL and _memory_kills() > self._memory_kills:
            return Status.OOM, f"{words}: the kernel was out of memory"
        return Status.ERROR, words


def _memory_kills() -> int:
    """How many processes the kernel has killed for want of memory; 0 where it does not tell."""
    with suppress(OSError, ValueError), open("/proc/vmstat", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    return 0


class _Company:
    """The most runs of this ablation that were seen under way on this machine at once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._last, self.most = folder, 0.0, 1
        self.look()

    def look(self) -> None:
        """Count again."""
        here = sum(claim.owner.is_here for claim in living(self._folder))
        self.most, self._last = max(self.most, here), time.monotonic()

    def look_at_times(self) -> None:
        """Count again, if it is some time since."""
        if time.monotonic() - self._last > _LOOK_SECONDS:
            self.look()


class _Asked:
    """Whether the parent has asked to stop: looked at now and then, since a look takes a while."""

    def __init__(self, stop: Connection) -> None:
        self._stop, self._last = stop, time.monotonic()

    def now(self) -> bool:
        """Look, if it is some time since."""
        if time.monotonic() - self._last < _ASK_SECONDS:
            return False
        self._last = time.monotonic()
        return self._stop.poll()


def _work(pipe: Connection, stop: Connection, folder: Path, modules: Sequence[str]) -> None:
    """The life of a worker process; a user's own modules are looked for in `modules` too."""
    look_in(modules)
    threading.Thread(target=die_with_parent, daemon=True).start()
    store = Store(folder)
    while stop not in connection.wait([pipe, stop]):
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        try:
            outcome = _do(job, store, pipe, _Asked(stop).now)
        except Interrupted:
            return
        except InputError as error:
            _tell(pipe, "unwritable", error.lines)
            continue
        if outcome is None:
            _tell(pipe, "lost", None)
        else:
            _tell(pipe, "ended", (str(outcome.status), outcome.reason))


def _do(job: Job, store: Store, pipe: Connection, asked: Callable[[], bool]) -> Outcome | None:
    """Make a run and write it; None where another process has taken it over meanwhile.

    Raises StorageError, and Interrupted where it was `asked` to end before.
    """
    company, begun, started = _Company(store.folder), time.monotonic(), now()
    checkpoint = checkpoint_of(job.run, store, job.safety)
    if job.device.startswith("cuda"):
        torch.cuda.set_device(job.device)

    def observe(row: dict[str, float]) -> None:
        company.look_at_times()
        _tell(pipe, "row", row)

    own = own_code(job.run)
    outcome = execute(
        job.run,
        device=job.device,
        safety=job.safety,
        observe=observe,
        checkpoint=checkpoint,
        tell=lambda line: _tell(pipe, "note", line),
        asked=asked,
    )
    company.look()
    env = environment(job.device, job.run.threads) | {"concurrent": company.most} | own
    wall = time.monotonic() - begun
    times = {"started": started, "finished": now(), "wall_seconds": round(wall, 3)}
    with store.writing():
        if not holds(store.folder, job.claim):
            return None
        store.write(job.run, outcome, env, times)
        if checkpoint is not None:
            checkpoint.discard()
    return outcome


def checkpoint_of(run: RunSpec, store: Store, safety: Safety) -> Checkpoint | None:
    """Where a run saves itself, and how often; None: it never does."""
    if safety.checkpoint_every is None:
        return None
    path = store.checkpoints / f"{run.run_id}.pt"
    return Checkpoint(path, safety.checkpoint_every, CHECKPOINT_SECONDS)


def _tell(pipe: Connection, kind: str, content: Any) -> None:
    try:
        pipe.send((kind, content))
    except OSError:
        os._exit(1)  # nobody is there: an unfinished run must not be recorded as a failed one


def die_with_parent() -> None:
    """End this process as soon as its parent has ended, however that was; for a thread."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def now() -> str:
    """The time, as status.json has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")

"""A worker process: it does the jobs of its parent, one after another.

It ends when its parent ends, in whatever way. On SIGTERM it raises KeyboardInterrupt and exits with
a special code. It ignores Ctrl-C in a terminal, which the parent handles.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from bdhf.errors import BdhfError
from bdhf.experiments.engines.interrupt import SIGNALS, shielded
from bdhf.experiments.engines.safe_path import safe_path
from bdhf.experiments.parts.user_modules import folders, look_in
from bdhf.records import Status

#: The kind of the last message of a worker that failed: the lines of a BdhfError.
FAULT = "fault"

#: Exit code of a worker after SIGTERM.
ASKED_TO_END = 128 + signal.SIGTERM


@dataclass(frozen=True)
class ExitStatus:
    """How a worker process ended."""

    code: int  # negative: minus the signal that killed it
    is_out_of_memory: bool = False  # the kernel reports that it killed it for lack of memory

    @property
    def status(self) -> Status:
        """The status of its run."""
        return Status.OOM if self.is_out_of_memory else Status.ERROR

    def __str__(self) -> str:
        if self.code == ASKED_TO_END:
            return "the worker process received SIGTERM"
        if self.code >= 0:
            code = self.code
            return f"the worker process ended with exit code {code}; stderr has its traceback"
        name = signal.strsignal(-self.code)
        words = f"the worker process was killed by signal {-self.code} ({name})"
        return f"{words}: the machine was out of memory" if self.is_out_of_memory else words


@dataclass(frozen=True)
class Parent:
    """The parent as its worker process sees it."""

    pipe: Connection

    def jobs(self) -> Iterator[Any]:
        """The jobs from the parent, until it closes the pipe."""
        with suppress(EOFError):
            while True:
                yield self.pipe.recv()

    def send(self, kind: str, content: Any = None) -> None:
        """Send a message on the job, with its kind."""
        try:
            self.pipe.send((kind, content))
        except OSError:
            os._exit(1)  # without a parent, an unfinished run must not be recorded as failed


#: The work of a worker process, with the arguments that it was started with.
WorkFunction = Callable[..., None]


@dataclass
class WorkerProcess:
    """A worker process as its parent sees it."""

    process: SpawnProcess
    pipe: Connection
    _memory_kills: int = 0  # of the kernel, at the last message

    @classmethod
    def start(cls, work: WorkFunction, *arguments: Any) -> WorkerProcess:
        """Start a process that calls `work(parent, *arguments)`."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_live, args=(work, theirs, folders(), arguments), daemon=True
        )
        with safe_path(), shielded():  # the child inherits both
            process.start()
        theirs.close()  # so that the end of the worker closes the pipe
        return cls(process, ours)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.is_alive()

    def send(self, job: Any) -> None:
        """Give it a job."""
        self._memory_kills = _memory_kills()
        with suppress(OSError):  # the worker has ended: the next read of the pipe reports it
            self.pipe.send(job)

    def receive(self) -> tuple[str, Any]:
        """Its next message, with the kind. Raises EOFError or OSError if it has ended."""
        kind, content = self.pipe.recv()
        self._memory_kills = _memory_kills()
        return kind, content

    def ask_to_end(self) -> None:
        """Let it save its run and end."""
        self.process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()  # half-written files have temporary names, and are removed later
        self.process.join()
        self.pipe.close()

    def exit_status(self) -> ExitStatus:
        """How it ended: out of memory only if the kernel reports it."""
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode or 0
        is_killed = code == -signal.SIGKILL
        return ExitStatus(code, is_killed and _memory_kills() > self._memory_kills)


def _live(
    work: WorkFunction, pipe: Connection, modules: Sequence[str], arguments: Sequence[Any]
) -> None:
    """Run a worker process; a user's own modules are also looked for in `modules`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    look_in(modules)
    parent = Parent(pipe)
    try:  # the first line raises a signal that came during the start
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        work(parent, *arguments)
    except BdhfError as error:
        parent.send(FAULT, error.lines)
    except KeyboardInterrupt:
        os._exit(ASKED_TO_END)
    except Exception:
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # do not interrupt a clean end
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended; for a thread."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _memory_kills() -> int:
    """How many processes the kernel has killed for lack of memory; 0 if it does not report it."""
    with suppress(OSError, ValueError), open("/proc/vmstat", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    return 0

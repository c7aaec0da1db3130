"""A worker process: it does the jobs that its parent gives it, one after the other.

It ends when its parent does, however that ends. Told to end by SIGTERM, it raises KeyboardInterrupt
and exits with a code of its own; Ctrl-C in a terminal, which all processes hear, is for the parent.
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

#: The kind of what a worker says that can do no more: the lines of a BdhfError.
FAULT = "fault"

#: Exit code of a worker that was told to end.
TOLD_TO_END = 128 + signal.SIGTERM


@dataclass(frozen=True)
class ExitStatus:
    """How a worker process ended."""

    code: int  # negative: minus the signal that killed it
    is_out_of_memory: bool = False  # the kernel is known to have killed it for that

    @property
    def status(self) -> Status:
        """What becomes of the run that it was at."""
        return Status.OOM if self.is_out_of_memory else Status.ERROR

    def __str__(self) -> str:
        if self.code == TOLD_TO_END:
            return "the worker process was told to end (SIGTERM)"
        if self.code >= 0:
            code = self.code
            return f"the worker process died with exit code {code}; its traceback went to stderr"
        words = f"the worker process died by signal {-self.code} ({signal.strsignal(-self.code)})"
        return f"{words}: the kernel was out of memory" if self.is_out_of_memory else words


@dataclass(frozen=True)
class Parent:
    """The parent as its worker process sees it."""

    pipe: Connection

    def jobs(self) -> Iterator[Any]:
        """What it gives to do, until it gives no more."""
        with suppress(EOFError):
            while True:
                yield self.pipe.recv()

    def tell(self, kind: str, content: Any = None) -> None:
        """Say something of the job, and of what kind that is."""
        try:
            self.pipe.send((kind, content))
        except OSError:
            os._exit(1)  # nobody is there: what is unfinished must not be recorded as failed


#: What a worker process does, with the arguments that it was started with.
WorkFunction = Callable[..., None]


@dataclass
class WorkerProcess:
    """A worker process as its parent sees it."""

    process: SpawnProcess
    pipe: Connection
    _memory_kills: int = 0  # of the kernel, when it was last heard

    @classmethod
    def start(cls, work: WorkFunction, *arguments: Any) -> WorkerProcess:
        """Start a process that calls `work(parent, *arguments)`."""
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_live, args=(work, theirs, folders(), arguments), daemon=True
        )
        with safe_path(), shielded():  # the child inherits both, from its first moment
            process.start()
        theirs.close()  # so that the death of the worker closes the pipe
        return cls(process, ours)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.is_alive()

    def send(self, job: Any) -> None:
        """Give it a job."""
        self._memory_kills = _memory_kills()
        with suppress(OSError):  # it died before: the next read of the pipe says so
            self.pipe.send(job)

    def hear(self) -> tuple[str, Any]:
        """What it says, and of what kind that is. Raises EOFError or OSError when it has died."""
        kind, content = self.pipe.recv()
        self._memory_kills = _memory_kills()
        return kind, content

    def tell_to_end(self) -> None:
        """Have it save what is under way and end."""
        self.process.terminate()

    def kill(self) -> None:
        """End it, whatever it does."""
        self.process.kill()  # what it was writing has a name that says so, and is swept
        self.process.join()
        self.pipe.close()

    def exit_status(self) -> ExitStatus:
        """How it ended: out of memory only where the kernel is known to have said so."""
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode or 0
        is_killed = code == -signal.SIGKILL
        return ExitStatus(code, is_killed and _memory_kills() > self._memory_kills)


def _live(
    work: WorkFunction, pipe: Connection, modules: Sequence[str], arguments: Sequence[Any]
) -> None:
    """The life of a worker process; a user's own modules are looked for in `modules` too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    look_in(modules)
    parent = Parent(pipe)
    try:  # a signal that came while the process started is raised by its first line
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        work(parent, *arguments)
    except BdhfError as error:
        parent.tell(FAULT, error.lines)
    except KeyboardInterrupt:
        os._exit(TOLD_TO_END)
    except Exception:
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # what ends cleanly is not interrupted at that
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, however that was; for a thread."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _memory_kills() -> int:
    """How many processes the kernel has killed for want of memory; 0 where it does not tell."""
    with suppress(OSError, ValueError), open("/proc/vmstat", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    return 0

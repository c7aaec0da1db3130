"""The owner of a file on disk: a process on a machine, and whether it still runs."""

from __future__ import annotations

import hashlib
import math
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import psutil

#: Seconds by which two readings of the starting time of one process may differ.
_SAME_START = 2.0

#: The largest process number; a larger one in a file is invalid.
_LAST_PID = 2**31 - 1

#: Linux states of a process that has ended before its parent waited for it.
_ENDED = ("Z", "X", "x")


@dataclass(frozen=True)
class Owner:
    """A process: the numbers of processes repeat, so its starting time is part of it.

    On Linux that is counted in ticks since the machine was started, because the clock may be set
    meanwhile. Files of older versions have no ticks, and are compared by the clock.
    """

    host: str  # with the boot and the process namespace, which differs in containers
    pid: int
    started: float  # seconds since 1970, by the clock
    ticks: int | None = None  # since the machine was started; None: unknown

    @classmethod
    def here(cls) -> Owner:
        """The current process."""
        return _owner(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Owner:
        """A process of this machine. Raises psutil.Error where there is none."""
        state = _state(pid)
        return cls(_host(), pid, psutil.Process(pid).create_time(), state and state[1])

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this machine."""
        return self.host == _host()

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended; False for another machine.

        This includes a process whose parent has not waited for it, as in many containers.
        """
        if not self.is_here:
            return False
        state = _state(self.pid) if self.ticks is not None else None
        if state is not None:
            return state[0] in _ENDED or state[1] != self.ticks
        return _is_gone_by_the_clock(self)

    def __str__(self) -> str:
        ticks = "" if self.ticks is None else f"~{self.ticks}"
        return f"{self.host}~{self.pid}~{self.started:.0f}{ticks}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Read what `str` wrote; None for anything else.

        >>> Owner.parse(str(Owner("a-b", 3, 17.0, 5))), Owner.parse("a-b~3~17")
        (Owner(host='a-b', pid=3, started=17.0, ticks=5), Owner(host='a-b', pid=3, started=17.0, \
ticks=None))
        """
        parts = re.fullmatch(r"([^~]+)~([0-9]{1,10})~([0-9]{1,15})(?:~([0-9]{1,18}))?", text)
        if parts is None or not 0 < int(parts[2]) <= _LAST_PID:
            return None
        ticks = None if parts[4] is None else int(parts[4])
        return cls(parts[1], int(parts[2]), float(parts[3]), ticks)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Owner:
        """Read the fields of an owner, as JSON has them.

        Raises ValueError for a missing, unknown or ill-typed field.

        >>> Owner.read({"host": "a-b", "pid": 3, "started": 17.0})
        Owner(host='a-b', pid=3, started=17.0, ticks=None)
        """
        host, pid, ticks = content.get("host"), content.get("pid"), content.get("ticks")
        started: Any = content.get("started")
        if not isinstance(host, str) or type(pid) is not int or not 0 < pid <= _LAST_PID:
            raise ValueError(f"host {host!r}, pid {pid!r}: not a process")
        if type(started) not in (int, float) or not math.isfinite(started):
            raise ValueError(f"started: {started!r} is not a time")
        if ticks is not None and type(ticks) is not int:
            raise ValueError(f"ticks: {ticks!r} is not a whole number")
        if unknown := content.keys() - {field.name for field in fields(cls)}:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        return cls(host, pid, float(started), ticks)


def _is_gone_by_the_clock(owner: Owner) -> bool:
    """Whether a process has ended, or has another starting time by the clock."""
    try:
        process = psutil.Process(owner.pid)
        started, status = process.create_time(), process.status()
    except psutil.NoSuchProcess:
        return not _is_hidden(owner.pid)
    except psutil.Error:
        return False
    if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
        return True
    return owner.ticks is None and abs(started - owner.started) > _SAME_START


def _is_hidden(pid: int) -> bool:
    """Whether the process belongs to another user and is hidden."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _state(pid: int) -> tuple[str, int] | None:
    """State and starting time, in ticks, of a process; None where the system does not report it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # the name before may contain any character
    return fields[0].decode("ascii"), int(fields[19])


@cache
def _owner(pid: int) -> Owner:  # by number: a forked process is another process
    return Owner.of(pid)


@cache
def _host() -> str:
    """The machine's name, boot and process namespace: many machines are called `localhost`."""
    name, space = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname()), ""
    with suppress(OSError):  # Linux only
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        space = boot + os.readlink("/proc/self/ns/pid")
    digest = hashlib.blake2b(space.encode(), digest_size=4).hexdigest()
    return f"{name}-{digest}" if space else name

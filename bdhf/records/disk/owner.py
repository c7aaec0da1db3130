"""Who holds something on disk: a process on a machine, and whether it still lives."""

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

#: Seconds by which the clock may tell two starting times of one process apart.
_SAME_START = 2.0

#: Numbers that processes have; whatever else a file calls a process is none.
_LAST_PID = 2**31 - 1

#: States of a process that has ended and that its parent has not taken note of, as Linux has them.
_ENDED = ("Z", "X", "x")


@dataclass(frozen=True)
class Owner:
    """A process: the numbers of processes repeat, so its starting time is part of it.

    That is counted in ticks since the machine was started, where the system tells them (Linux): the
    clock may be set meanwhile. Older versions wrote no ticks, and are held against the clock.
    """

    host: str  # with its boot and the name space of process numbers: a container's are its own
    pid: int
    started: float  # seconds since 1970, as the clock had it
    ticks: int | None = None  # since the machine was started; None: not known

    @classmethod
    def here(cls) -> Owner:
        """Name the process that asks."""
        return _owner(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Owner:
        """Name a process of this machine. Raises psutil.Error where there is none."""
        state = _state(pid)
        return cls(_host(), pid, psutil.Process(pid).create_time(), state and state[1])

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this machine."""
        return self.host == _host()

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended; of another machine nothing is known.

        One that has ended without its parent taking note, as in many containers, is gone as well.
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

        Raises ValueError where one is missing or of another type, or more are there.

        >>> Owner.read({"host": "a-b", "pid": 3, "started": 17.0})
        Owner(host='a-b', pid=3, started=17.0, ticks=None)
        """
        host, pid, ticks = content.get("host"), content.get("pid"), content.get("ticks")
        started: Any = content.get("started")
        if not isinstance(host, str) or type(pid) is not int or not 0 < pid <= _LAST_PID:
            raise ValueError(f"host {host!r}, pid {pid!r}: no process")
        if type(started) not in (int, float) or not math.isfinite(started):
            raise ValueError(f"started: {started!r} is no time")
        if ticks is not None and type(ticks) is not int:
            raise ValueError(f"ticks: {ticks!r} is no whole number")
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
    """Whether the system has the process of another user, and does not show it."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _state(pid: int) -> tuple[str, int] | None:
    """State and starting time, in ticks, of a process; None where the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # the name before may hold anything
    return fields[0].decode("ascii"), int(fields[19])


@cache
def _owner(pid: int) -> Owner:  # by number: a forked process is another one
    return Owner.of(pid)


@cache
def _host() -> str:
    """The machine's name and what its processes are counted in: many machines are `localhost`."""
    name, space = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname()), ""
    with suppress(OSError):  # Linux only
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        space = boot + os.readlink("/proc/self/ns/pid")
    digest = hashlib.blake2b(space.encode(), digest_size=4).hexdigest()
    return f"{name}-{digest}" if space else name

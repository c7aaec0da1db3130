"""Who holds something on disk: a process on a machine, and whether it still lives."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

#: Seconds by which the clock may tell two starting times of one process apart.
_SAME_START = 2.0


@dataclass(frozen=True)
class Owner:
    """A process: the numbers of processes repeat, so its starting time is part of it."""

    host: str  # with its boot and the name space of process numbers: a container's are its own
    pid: int
    started: float  # seconds since 1970

    @classmethod
    def here(cls) -> Owner:
        """Name the process that asks."""
        return _owner(os.getpid())

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
        try:
            process = psutil.Process(self.pid)
            started, status = process.create_time(), process.status()
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False
        ended = status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return ended or abs(started - self.started) > _SAME_START

    def __str__(self) -> str:
        return f"{self.host}~{self.pid}~{self.started:.0f}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Read what `str` wrote; None for anything else.

        >>> Owner.parse(str(Owner("a-b", 3, 17.0)))
        Owner(host='a-b', pid=3, started=17.0)
        """
        found = re.fullmatch(r"(.+)~(\d+)~(\d+)", text)
        return cls(found[1], int(found[2]), float(found[3])) if found else None


@cache
def _owner(pid: int) -> Owner:  # by number: a forked process is another one
    return Owner(_host(), pid, psutil.Process(pid).create_time())


@cache
def _host() -> str:
    """The machine's name and what its processes are counted in: many machines are `localhost`."""
    name, space = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname()), ""
    with suppress(OSError):  # Linux only
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        space = boot + os.readlink("/proc/self/ns/pid")
    digest = hashlib.blake2b(space.encode(), digest_size=4).hexdigest()
    return f"{name}-{digest}" if space else name

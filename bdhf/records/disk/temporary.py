"""Incomplete files have a name with their owner, `.tmp-<owner>~…`, until they are renamed.

So leftovers of killed processes can be distinguished from files in progress, and removed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from bdhf.records.disk.owner import Owner

#: Seconds without a change after which an owner on another machine counts as ended.
STALE_SECONDS = 600.0

_PREFIX = ".tmp-"

_T = TypeVar("_T")


def temporary_file(folder: Path) -> tuple[int, Path]:
    """Open a temporary file of this process, to be renamed: its descriptor and path.

    It has the permissions that the umask leaves.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    return _with_new_name(folder, lambda path: os.open(path, flags, 0o666))


def temporary_folder(parent: Path) -> Path:
    """Make a temporary folder of this process, to be renamed.

    It has the permissions that the umask leaves.
    """
    return _with_new_name(parent, os.mkdir)[1]


def _with_new_name(folder: Path, make: Callable[[Path], _T]) -> tuple[_T, Path]:
    """Make a file or folder with an unused name."""
    while True:
        path = folder / f"{_PREFIX}{Owner.here()}~{secrets.token_hex(4)}"
        with suppress(FileExistsError):
            return make(path), path


def remove_leftovers(folders: Iterable[Path], stale_seconds: float = STALE_SECONDS) -> None:
    """Remove incomplete files of ended processes from these folders."""
    for folder in folders:
        leftovers: list[Path] = []
        now = 0.0  # without a clock, leftovers of other machines stay
        with suppress(OSError):  # the folder may be removed meanwhile
            leftovers = list(folder.glob(f"{_PREFIX}*"))
            now = clock_of(folder) if leftovers else 0.0
        for leftover in leftovers:
            if _is_abandoned(leftover, now, stale_seconds):
                _remove(leftover)


def clock_of(folder: Path) -> float:
    """The time of the file system, in seconds since 1970, which machines that share it agree on."""
    handle, path = temporary_file(folder)
    try:
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        path.unlink()


def is_silent(path: Path, now: float, stale_seconds: float) -> bool:
    """Whether a file has not changed for so long before `now`. Raises OSError.

    A file that far in the future is silent too: the clock was set back since, and a running process
    would have touched it after that.
    """
    return abs(now - path.stat().st_mtime) > stale_seconds


def _is_abandoned(path: Path, now: float, stale_seconds: float) -> bool:
    owner = Owner.parse(path.name.removeprefix(_PREFIX).rpartition("~")[0])
    if owner is not None and owner.is_here:
        return owner.is_gone
    with suppress(OSError):
        return bool(now) and is_silent(path, now, stale_seconds)
    return False  # it is gone


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()

"""What is half-written has a name that tells whose it is, `.tmp-<owner>~…`, until it is renamed.

So what a killed process leaves behind can be told from what a living one is writing, and swept.
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

#: Silence after which the owner of something on another machine is taken for dead.
STALE_SECONDS = 600.0

_PREFIX = ".tmp-"

_T = TypeVar("_T")


def temporary_file(folder: Path) -> tuple[int, Path]:
    """Open a file of this process's own, to be renamed into place: its descriptor and path.

    It has the rights that the umask leaves.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    return _with_new_name(folder, lambda path: os.open(path, flags, 0o666))


def temporary_folder(parent: Path) -> Path:
    """Make a folder of this process's own, to be renamed into place.

    It has the rights that the umask leaves.
    """
    return _with_new_name(parent, os.mkdir)[1]


def _with_new_name(folder: Path, make: Callable[[Path], _T]) -> tuple[_T, Path]:
    """Make something under a name that nothing there has."""
    while True:
        path = folder / f"{_PREFIX}{Owner.here()}~{secrets.token_hex(4)}"
        with suppress(FileExistsError):
            return make(path), path


def remove_leftovers(folders: Iterable[Path], stale_seconds: float = STALE_SECONDS) -> None:
    """Remove what processes that are gone have left half-written in these folders."""
    for folder in folders:
        leftovers: list[Path] = []
        now = 0.0  # no clock can be read: leftovers of other machines stay
        with suppress(OSError):  # the folder itself may go
            leftovers = list(folder.glob(f"{_PREFIX}*"))
            now = clock_of(folder) if leftovers else 0.0
        for leftover in leftovers:
            if _is_abandoned(leftover, now, stale_seconds):
                _remove(leftover)


def clock_of(folder: Path) -> float:
    """The time of the file system there, seconds since 1970: machines that share it agree on it."""
    handle, path = temporary_file(folder)
    try:
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        path.unlink()


def is_silent(path: Path, now: float, stale_seconds: float) -> bool:
    """Whether nothing has touched a file for so long before `now`. Raises OSError.

    One that is dated as far ahead is silent too: the clock was set back since, and whoever lives
    would have touched it by the new one.
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

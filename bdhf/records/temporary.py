"""What is half-written has a name that tells whose it is, `.tmp-<owner>~…`, until it is renamed.

So what a killed process leaves behind can be told from what a living one is writing, and swept.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bdhf.records.owner import Owner

#: Silence after which the owner of something on another machine is taken for dead.
STALE_SECONDS = 600.0

_PREFIX = ".tmp-"


def temporary_file(folder: Path) -> tuple[int, str]:
    """Open a file of this process's own, to be renamed into place: its descriptor and name."""
    return tempfile.mkstemp(dir=folder, prefix=_prefix())


def temporary_folder(parent: Path) -> Path:
    """Make a folder of this process's own, to be renamed into place."""
    return Path(tempfile.mkdtemp(prefix=_prefix(), dir=parent))


def sweep(folders: Iterable[Path], stale_seconds: float = STALE_SECONDS) -> None:
    """Remove what processes that are gone have left half-written in these folders."""
    for folder in folders:
        leftovers: list[Path] = []
        now = 0.0  # where no clock can be read, leftovers of other machines stay
        with suppress(OSError):  # the folder itself may go
            leftovers = list(folder.glob(f"{_PREFIX}*"))
            now = clock_of(folder) if leftovers else 0.0
        for leftover in leftovers:
            if _is_abandoned(leftover, now, stale_seconds):
                _remove(leftover)


def clock_of(folder: Path) -> float:
    """The time of the file system there, seconds since 1970: machines that share it agree on it."""
    handle, name = temporary_file(folder)
    try:
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        os.unlink(name)


def _prefix() -> str:
    return f"{_PREFIX}{Owner.here()}~"


def _is_abandoned(path: Path, now: float, stale_seconds: float) -> bool:
    owner = Owner.parse(path.name.removeprefix(_PREFIX).rpartition("~")[0])
    if owner is not None and owner.is_here:
        return owner.is_gone
    with suppress(OSError):
        return now - path.stat().st_mtime > stale_seconds
    return False  # it is gone


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()

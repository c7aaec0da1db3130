"""Detect the workers of a journal, also across containers and restarts.

Process numbers start again in every container and after a restart, so they cannot show whether the
owner of a trial has ended. Each worker therefore keeps its own file locked. The operating system
releases the lock when the worker ends for any reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bdhf.records import Owner, unwritable
from bdhf.records.disk.locks import lock

_PREFIX = ".worker-"


@contextmanager
def present(folder: Path) -> Iterator[None]:
    """Mark this process as a worker in the folder of a study. Raises InputError."""
    _sweep(folder)
    path = _path(folder, Owner.here())
    with unwritable(folder):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        lock(file, wait=False)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(file)


def has_left(folder: Path, owner: Owner) -> bool:
    """Whether the owner of a trial in a folder has ended."""
    if owner.is_here:
        return owner.is_gone
    try:
        file = os.open(_path(folder, owner), os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        return lock(file, wait=False)  # without locks this is unknown: it may be running
    finally:
        os.close(file)


def _sweep(folder: Path) -> None:
    """Remove the files of processes that were killed."""
    for path in folder.glob(f"{_PREFIX}*"):
        owner = Owner.parse(path.name.removeprefix(_PREFIX))
        if owner is not None and owner.is_gone:
            path.unlink(missing_ok=True)


def _path(folder: Path, owner: Owner) -> Path:
    return folder / f"{_PREFIX}{owner}"

"""Who is at a study in a journal, told to processes that cannot see each other.

A machine that was started again, and every container, counts its processes anew: of one that it
does not know it cannot say whether it has ended. So each worker keeps a file of its own locked,
which the system lets go when it ends, however that is.
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
    """Say in a study's folder, while it lasts, that this process is at it. Raises InputError."""
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
    """Whether a process that is said to be at the study in a folder has ended."""
    if owner.is_here:
        return owner.is_gone
    try:
        file = os.open(_path(folder, owner), os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        return lock(file, wait=False)  # without locks nobody can tell: it may be at work
    finally:
        os.close(file)


def _sweep(folder: Path) -> None:
    """Take away the files of killed processes that are known to have ended."""
    for path in folder.glob(f"{_PREFIX}*"):
        owner = Owner.parse(path.name.removeprefix(_PREFIX))
        if owner is not None and owner.is_gone:
            path.unlink(missing_ok=True)


def _path(folder: Path, owner: Owner) -> Path:
    return folder / f"{_PREFIX}{owner}"

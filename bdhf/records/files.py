"""Files and folders that exist whole or not at all, whatever kills the process that writes them.

They are written under a name that tells whose they are, `.tmp-<owner>-…`, then renamed: what is
left behind can be swept when its owner is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pandas as pd

from bdhf.records.owner import Owner
from bdhf.records.schema import PLAN_INDEX, RECORDS_VERSION, InputError

#: Silence after which the owner of something on another machine is taken for dead.
STALE_SECONDS = 600.0

_PREFIX = ".tmp-"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that exists whole or not at all, whatever kills the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_prefix())
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet, atomically and without its index."""
    write_atomically(path, table.to_parquet(index=False))


def read_table(path: Path) -> pd.DataFrame:
    """Read a table. Raises InputError for a torn one."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            [f"{path}: not a whole table ({first}); `bdhf run` writes it anew"]
        ) from None


def check_version(folder: Path) -> None:
    """Look whether this version can read a results folder. Raises InputError."""
    path = folder / PLAN_INDEX
    try:
        version = json.loads(path.read_text(encoding="utf-8")).get("records", 0)
    except (OSError, ValueError, AttributeError):
        return  # there is none, or it is torn: whoever reads it says so
    if isinstance(version, int) and version > RECORDS_VERSION:
        raise InputError(
            [
                f"{path}: written by a newer bdhf (records {version}; this one reads up to "
                f"{RECORDS_VERSION}): upgrade bdhf"
            ]
        )


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
    handle, name = tempfile.mkstemp(dir=folder, prefix=_prefix())
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

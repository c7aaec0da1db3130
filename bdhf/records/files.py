"""Files that are read whole or refused in words, and written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from pydantic import ValidationError

from bdhf.records.temporary import temporary_file

#: What the readers of JSON, YAML and parquet raise at bytes that they can make nothing of.
UNREADABLE = (
    OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, MemoryError,
    pa.ArrowException,
)  # fmt: skip


#: Why nothing can be written: no room, no rights, a broken disk, a file in the place of a folder.
UNWRITABLE = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO,
     errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)
)  # fmt: skip


class InputError(Exception):
    """What was given cannot be used: one line per fault, each with what to do next."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


class UnreadableError(InputError):
    """A file is there, and the system does not let it be read."""


class StorageError(InputError):
    """Results cannot be written; those that are there are whole."""


def in_brief(error: BaseException) -> str:
    """What went wrong, in one line without the path."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def of_what_kind(error: BaseException) -> str:
    """The type of what went wrong and what it says, in one line.

    >>> of_what_kind(KeyError("lr"))
    "KeyError: 'lr'"
    """
    return f"{type(error).__name__}: {error}".splitlines()[0]


def read_bytes(path: Path) -> bytes:
    """Read a file. Raises UnreadableError where it is there and cannot be read at this moment.

    That is not to be taken for a torn one: what is torn is made again.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise
    except OSError as error:
        raise UnreadableError([f"{path}: cannot be read: {in_brief(error)}"]) from None


def read_table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a table that has these columns. Raises InputError for any other file."""
    try:
        content = parquet.read_table(pa.BufferReader(path.read_bytes()))
        content.validate(full=True)  # text too, which is decoded when it is used
        table: pd.DataFrame = content.to_pandas()
        missing = [name for name in columns if name not in table]
        if missing or not table.columns.is_unique:
            raise ValueError(f"columns {', '.join(map(str, table))}: not those of this table")
    except UNREADABLE as error:
        fault = f"not a whole table ({in_brief(error)}); `bdhf run` writes it anew"
        raise InputError([f"{path}: {fault}"]) from None
    return table


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that exists whole or not at all, whatever kills the process.

    Raises StorageError where nothing can be written.
    """
    with unwritable(path):
        _write_atomically(path, content)


@contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """Turn a disk that is full or read-only into one line. Raises StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise StorageError(
            [
                f"{path}: cannot write results: {in_brief(error)}; what has finished is kept: "
                "make room or give the rights, then the same command goes on"
            ]
        ) from error


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = temporary_file(path.parent)
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

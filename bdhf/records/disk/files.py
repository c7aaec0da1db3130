"""Files that are read whole or refused with a message, and written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from pydantic import ValidationError

from bdhf.errors import BdhfError
from bdhf.records.disk.checksums import check_table, require_checksum, sums_with, table_bytes
from bdhf.records.disk.temporary import remove_leftovers, temporary_file

#: What the readers of JSON, YAML and parquet raise for invalid bytes.
UNREADABLE = (
    OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, MemoryError,
    pa.ArrowException,
)  # fmt: skip


#: Why writing fails (no space, no permission, a broken disk, a wrong kind of file, or a missing
#: folder) -> what to do.
WHAT_TO_DO: Mapping[int, str] = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG,
         errno.EIO, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY),
        "free space or grant write permission",
    ),
    errno.ENOTDIR: "remove the file that has the name of a folder",
    errno.EISDIR: "remove the folder that has the name of a file",
    errno.ENOENT: "restore the missing folder",
    errno.ESTALE: "restore the missing folder",
}  # fmt: skip

#: Errors of a folder that can be read but not written.
_READ_ONLY = frozenset((errno.EROFS, errno.EACCES, errno.EPERM))


class InputError(BdhfError):
    """Invalid input: one line per fault, each with what to do next."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = tuple(lines)
        super().__init__("\n".join(self._lines))

    @property
    def lines(self) -> tuple[str, ...]:
        """The faults, one entry each; an entry may contain line breaks, as in odd names."""
        return self._lines


class UnreadableError(InputError):
    """A file exists, but the system does not allow reading it."""


class StorageError(InputError):
    """Results cannot be written; existing results are whole."""


class ReadOnlyError(StorageError):
    """Results can be read, but writing is not permitted."""


def in_brief(error: BaseException) -> str:
    """The error message, in one line without the path."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def of_what_kind(error: BaseException) -> str:
    """The type and the message of an error, in one line.

    >>> of_what_kind(KeyError("lr"))
    "KeyError: 'lr'"
    """
    return f"{type(error).__name__}: {error}".splitlines()[0]


def read_bytes(path: Path) -> bytes:
    """Read a file. Raises UnreadableError where it exists and cannot be read at the moment.

    Such a file must not count as torn, because torn runs are made again.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise
    except OSError as error:
        raise UnreadableError([f"{path}: cannot be read: {in_brief(error)}"]) from None


def read_whole(path: Path, sums: Mapping[str, str]) -> bytes:
    """Read a file. Raises ValueError where these sums have another one for it.

    Raises OSError where there is no file, and UnreadableError.
    """
    content = read_bytes(path)
    if path.name in sums:
        require_checksum(content, sums[path.name])
    return content


def read_table(
    path: Path,
    columns: Iterable[str],
    *,
    content: bytes | None = None,
    sums: Mapping[str, str] = MappingProxyType({}),
) -> pd.DataFrame:
    """Read a table that has these columns. Raises InputError for any other file.

    `content`: use this instead of the content of the file. `sums`: of files by their names.
    """
    try:
        whole = read_whole(path, sums) if content is None else content
        check_table(whole)
        read = parquet.read_table(pa.BufferReader(whole))
        read.validate(full=True)  # including text, which is otherwise decoded only on use
        table: pd.DataFrame = read.to_pandas()
        missing = [name for name in columns if name not in table]
        if missing or not table.columns.is_unique:
            raise ValueError(f"columns {', '.join(map(str, table))}: not those of this table")
    except UNREADABLE as error:
        raise InputError([_not_whole(path, error)]) from None
    return table


def table_sums(path: Path) -> dict[str, str]:
    """File name -> sum of what was written with a table; {} without sums, or without the table.

    Raises InputError for a table that is not whole.
    """
    try:
        return sums_with(read_bytes(path))
    except FileNotFoundError:
        return {}
    except UNREADABLE as error:
        raise InputError([_not_whole(path, error)]) from None


def _not_whole(path: Path, error: BaseException) -> str:
    return f"{path}: not a whole table ({in_brief(error)}); `bdhf run` rewrites it"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, even if the process is killed.

    Raises StorageError where nothing can be written.
    """
    with unwritable(path):
        _write_atomically(path, content)


@contextmanager
def unwritable(path: Path) -> Iterator[None]:
    """Turn the error of a full or read-only disk into one line. Raises StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno not in WHAT_TO_DO:
            raise
        kind = ReadOnlyError if error.errno in _READ_ONLY else StorageError
        raise kind(
            [
                f"{path}: cannot write results: {in_brief(error)}; finished runs are kept: "
                f"{WHAT_TO_DO[error.errno]}, then run the same command to resume"
            ]
        ) from error


@contextmanager
def if_writable() -> Iterator[list[str]]:
    """Write inside this context if the folder permits it; else yield the reason and continue."""
    why: list[str] = []
    try:
        yield why
    except ReadOnlyError as error:
        why.append(in_brief(error.__cause__ or error))


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers((path.parent,))  # of a killed process
    handle, temporary = temporary_file(path.parent)
    try:
        _write_and_close(handle, content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    keep_names(path.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Write a new file that is on disk when this returns; its name is after `keep_names`.

    Raises OSError.
    """
    _write_and_close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), content)


def _write_and_close(handle: int, content: bytes) -> None:
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def keep_names(folder: Path) -> None:
    """Make the names in a folder survive a power failure, where the system supports it."""
    with suppress(OSError):  # unsupported by the file system, or the folder is gone
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_table(path: Path, table: pd.DataFrame, sums: Mapping[str, str] | None = None) -> None:
    """Write a table as parquet with its own sum, atomically and without its index.

    `sums`: file name -> sum of what was written with it.
    """
    write_atomically(path, table_bytes(table, sums))

"""Limits for the unpacked records of a page, since a small file can unpack to a huge one.

The sizes that an archive states are checked before it is unpacked, and no more is read than is
stated.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile, ZipFile

import pyarrow as pa
from pyarrow import compute, parquet

from bdhf.records import InputError, in_brief

#: The largest size in bytes of all members of an archive together, and of a table in memory.
MOST_BYTES = 2**30

#: The largest size of a page, in bytes.
MOST_OF_A_PAGE = 2**29


def read_page(path: Path) -> str:
    """The text of a page. Raises InputError for anything but a text file below the limit."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a file")
        if path.stat().st_size > MOST_OF_A_PAGE:
            raise ValueError(f"it has more than {MOST_OF_A_PAGE // 2**20} MB")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError([f"{path}: not a readable report: {in_brief(error)}"]) from None


def refuse_large(archive: ZipFile) -> None:
    """Raise BadZipFile if the members of an archive would be too large."""
    _refuse(sum(member.file_size for member in archive.infolist()), "its archive")


def read_member(archive: ZipFile, name: str) -> bytes:
    """A member of an archive. Raises BadZipFile if its size is not the stated one."""
    stated = archive.getinfo(name).file_size
    with archive.open(name) as file:
        content = file.read(stated + 1)
    if len(content) != stated:
        raise BadZipFile(f"{name} does not have its stated size")
    return content


def read_parquet(content: bytes) -> pa.Table:
    """Read a table; texts are read as indices into a list of distinct ones.

    Raises BadZipFile for a table that would be too large, ArrowException for invalid content.
    """
    file = parquet.ParquetFile(pa.BufferReader(content))
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    stated = sum(group.total_byte_size for group in groups)
    cells = 8 * file.metadata.num_rows * len(file.schema_arrow)
    _refuse(max(stated, cells), "a table")
    texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
    short = parquet.ParquetFile(pa.BufferReader(content), read_dictionary=texts).read()
    _refuse(short.nbytes + sum(_length(short[name]) for name in texts), "a table")
    return short.cast(file.schema_arrow)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _length(column: pa.ChunkedArray) -> int:
    """Bytes of all texts of a column, including repeated ones."""
    total = 0
    for chunk in column.chunks:
        lengths = compute.binary_length(chunk.dictionary).take(chunk.indices)
        total += compute.sum(lengths.cast(pa.int64())).as_py() or 0
    return total


def _refuse(size: int, what: str) -> None:
    if size > MOST_BYTES:
        limit = f"{MOST_BYTES // 2**20} MB"
        raise BadZipFile(f"{what} would take {size / 2**20:.0f} MB; the limit is {limit}")

"""How much the records of a page may be once they are unpacked: small files can hold endless ones.

The sizes that an archive states are looked at before anything of it is unpacked, and no more is
read than is stated.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile, ZipFile

import pyarrow as pa
from pyarrow import compute, parquet

from bdhf.records import InputError, in_brief

#: Bytes that all members of an archive may have together, and a table once it is read.
MOST_BYTES = 2**30

#: Bytes of a page.
MOST_OF_A_PAGE = 2**29


def read_page(path: Path) -> str:
    """The text of a page. Raises InputError for what is no file, too large, or no text."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")
        if path.stat().st_size > MOST_OF_A_PAGE:
            raise ValueError(f"it has more than {MOST_OF_A_PAGE // 2**20} MB")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError([f"{path}: no report that can be read: {in_brief(error)}"]) from None


def refuse_large(archive: ZipFile) -> None:
    """Raises BadZipFile where the members of an archive would be too large."""
    _refuse(sum(member.file_size for member in archive.infolist()), "its archive")


def read_member(archive: ZipFile, name: str) -> bytes:
    """A member of an archive, no further than its stated size. Raises BadZipFile for another."""
    stated = archive.getinfo(name).file_size
    with archive.open(name) as file:
        content = file.read(stated + 1)
    if len(content) != stated:
        raise BadZipFile(f"{name} is not of the size that it states")
    return content


def read_parquet(content: bytes) -> pa.Table:
    """A table out of its file; texts are read as numbers of a list of distinct ones.

    Raises BadZipFile for one that would be too large, and ArrowException for what is no table.
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
    """Bytes of all texts of a column, each as often as it stands there."""
    total = 0
    for chunk in column.chunks:
        lengths = compute.binary_length(chunk.dictionary).take(chunk.indices)
        total += compute.sum(lengths.cast(pa.int64())).as_py() or 0
    return total


def _refuse(size: int, what: str) -> None:
    if size > MOST_BYTES:
        limit = f"{MOST_BYTES // 2**20} MB are read"
        raise BadZipFile(f"{what} would have {size / 2**20:.0f} MB, and at most {limit}")

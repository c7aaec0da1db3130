"""Sums (SHA-256) that detect any change of a file after it was written.

A run's status.json holds the sum of every other file of the run, and one of its own content. A
table holds the sum of its own bytes, and those of the files that were written with it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from pydantic_core import from_json

#: The message for a file that was changed.
_OTHER_BYTES = "not the bytes that were written"

#: Key of a JSON file: the sum of the rest of it.
SUM = "sum"

#: Key in the metadata of a table that has its own sum; its value: file name -> sum, as JSON.
_SEAL = b"bdhf.sha256"

_DIGEST_BYTES = hashlib.sha256().digest_size

#: Bytes after the footer of a parquet file: its length (4 bytes) and the name of the format.
_END_BYTES = 8


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def require_checksum(content: bytes, expected: str) -> None:
    """Raise ValueError for bytes of another sum."""
    if digest(content) != expected:
        raise ValueError(_OTHER_BYTES)


def with_sum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data with the sum of its values, independent of their layout in a file."""
    rest = {key: value for key, value in content.items() if key != SUM}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, SUM: digest(canonical.encode("ascii"))}


def check_sum(content: Mapping[str, Any]) -> None:
    """Raise ValueError for plain data with a wrong sum."""
    if SUM in content and with_sum(content) != content:
        raise ValueError(_OTHER_BYTES)


def table_bytes(table: pd.DataFrame, sums: Mapping[str, str] | None = None) -> bytes:
    """A table without its index as parquet with its own sum: 32 bytes in front of the footer.

    Readers of parquet use the offsets of the footer and ignore these bytes. `sums`: of files that
    were written with it.
    """
    content = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {**(content.schema.metadata or {}), _SEAL: json.dumps(dict(sums or {})).encode()}
    buffer = io.BytesIO()
    parquet.write_table(content.replace_schema_metadata(metadata), buffer)
    pages, footer = _parts(buffer.getvalue())
    return pages + hashlib.sha256(pages + footer).digest() + footer


def check_table(content: bytes) -> None:
    """Raise ValueError for a table with a wrong sum; older ones have none."""
    before, footer = _parts(content)
    if _SEAL not in footer:
        return
    pages, own = before[:-_DIGEST_BYTES], before[-_DIGEST_BYTES:]
    if hashlib.sha256(pages + footer).digest() != own:
        raise ValueError(_OTHER_BYTES)


def sums_with(content: bytes) -> dict[str, str]:
    """File name -> sum of what was written with a table; {} for one that has none.

    Raises one of `files.UNREADABLE` for anything but a whole table.
    """
    check_table(content)
    metadata = parquet.read_schema(pa.BufferReader(content)).metadata or {}
    return {str(name): str(value) for name, value in from_json(metadata.get(_SEAL, b"{}")).items()}


def _parts(content: bytes) -> tuple[bytes, bytes]:
    """The bytes before the footer of a parquet file, and the rest."""
    length = int.from_bytes(content[-_END_BYTES : -_END_BYTES // 2], "little")
    at = max(len(content) - _END_BYTES - length, 0)
    return content[:at], content[at:]

"""The version of the records: a whole number in plan.json and in the status.json of every run.

It rises when an older bdhf would misread a file. Every version up to this one is read; files
without a number have version 0. A newer version is refused before its other content is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from bdhf.records.disk.checksums import require_checksum
from bdhf.records.disk.files import UNREADABLE, InputError, read_bytes

RECORDS_VERSION = 1

PLAN_INDEX = "plan.json"


class NewerRecordsError(InputError):
    """A file was written by a newer bdhf."""

    def __init__(self, path: Path, version: int) -> None:
        self.version = version
        super().__init__(
            [
                f"{path}: records of version {version}; this bdhf reads up to version "
                f"{RECORDS_VERSION}: upgrade bdhf, or use another results folder"
            ]
        )


def read_record(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Raises NewerRecordsError for a newer version, and one of UNREADABLE for any other file.
    """
    return parse_record(path, read_bytes(path))


def parse_record(path: Path, read: bytes) -> dict[str, Any]:
    """The content of a JSON file from its bytes; raises what `read_record` raises."""
    content = from_json(read)  # stricter with Unicode than json: it can be saved again
    if not isinstance(content, dict):
        raise ValueError("not a mapping")
    version = content.get("records", 0)
    if type(version) is not int or version < 0:
        raise ValueError(f"records: {version!r} is not a version")
    if version > RECORDS_VERSION:
        raise NewerRecordsError(path, version)
    return content


@dataclass(frozen=True)
class PlanFile:
    """The result of reading plan.json once."""

    path: Path
    content: bytes | None  # None: nothing could be read
    record: dict[str, Any] | Exception  # its content, or why it has none

    def whole(self, sums: Mapping[str, str]) -> dict[str, Any] | None:
        """Its content; None where there is no file, and these sums have none for it.

        Raises one of UNREADABLE for a file that is torn, lost or changed.
        """
        name = self.path.name
        if isinstance(self.record, FileNotFoundError) and name not in sums:
            return None
        if self.content is not None and name in sums:
            require_checksum(self.content, sums[name])
        if isinstance(self.record, Exception):
            raise self.record
        return self.record


def refuse_newer(folder: str | Path) -> PlanFile:
    """Raise InputError for a results folder of a newer version; a torn plan.json has none."""
    path, content = Path(folder) / PLAN_INDEX, None
    try:
        content = read_bytes(path)
        return PlanFile(path, content, parse_record(path, content))
    except UNREADABLE as error:
        return PlanFile(path, content, error)

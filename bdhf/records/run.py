"""One run's folder: read whole, each file once, or not counted for a reason.

A folder that cannot be read is never counted as done. A torn one is run again; one that a newer
bdhf wrote stays as it is. A single changed bit makes a folder torn: its status.json has the sums of
its files, which older versions did not write.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from bdhf.records.columns import CELL, CURVE_COLUMNS, TOTALS, WHOLE
from bdhf.records.disk.checksums import SUM, check_sum, digest, with_sum
from bdhf.records.disk.files import UNREADABLE, InputError, UnreadableError, in_brief, read_whole
from bdhf.records.disk.version import RECORDS_VERSION, NewerRecordsError, parse_record, read_record
from bdhf.records.schema import Status

#: Columns that a curve cannot have: those that the collected tables add.
_TAKEN = {*CELL, "status", "reason"}

_STATUS_FILE = "status.json"
_CURVE_FILE = "curve.parquet"

#: The files of a run with sums in its status.json; not every run has the last one.
_SUMMED = ("spec.yaml", "env.json", _CURVE_FILE, "traceback.txt")

#: Keys of status.json that describe its files, not the run.
SEALS = ("run_id", "sha256", SUM)


@dataclass(frozen=True)
class Run:
    """A whole run."""

    status: dict[str, Any]  # status.json, with its reason
    curve: pa.Table  # counts are int64, everything else float64


@dataclass(frozen=True)
class Uncounted:
    """A folder that is not a whole run."""

    reason: str
    kept: InputError | None = None  # why it may still be one, and must not be replaced


def sealed(run_id: str, status: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """The content of a run's status.json, with the sums of its files and of itself."""
    sums = {name: digest(content) for name, content in files.items()}
    return with_sum({**status, "run_id": run_id, "sha256": sums})


def read_run(folder: Path, *, checked: bool = True) -> Run | Uncounted:
    """Read all files of a run's folder, and check each against its sum.

    `checked` False reads status and curve without that check, to look for changes.
    """
    name = _STATUS_FILE
    try:
        status = _status(folder / name)
        sums = _checked(status, folder.name) if checked else {}
        for name in sorted(sums.keys() - {_CURVE_FILE}):
            read_whole(folder / name, sums)
        name = _CURVE_FILE
        return Run(status, _curve(read_whole(folder / name, sums)))
    except NewerRecordsError as error:
        versions = f"version {error.version}, this bdhf reads up to {RECORDS_VERSION}"
        return Uncounted(f"foreign: records of {versions}: upgrade bdhf", error)
    except UnreadableError as error:
        return Uncounted(f"unreadable: {error}", error)
    except UNREADABLE as error:
        return Uncounted(f"torn: {name}: {in_brief(error)}")


def run_status(folder: str | Path, run_id: str) -> dict[str, Any] | None:
    """Give the content of a run's status.json, or None where there is no whole run.

    Raises InputError for a run of a newer version, or one that cannot be read at the moment:
    neither must be run again.
    """
    run = read_run(Path(folder) / "runs" / run_id)
    if isinstance(run, Run):
        return run.status
    if run.kept is not None:
        raise run.kept
    return None


def sums_of(folder: Path) -> dict[str, str]:
    """File name -> sum of the files of a run; {} for an older run. Raises one of UNREADABLE."""
    return _sums(_status(folder / _STATUS_FILE))


def _checked(status: Mapping[str, Any], run_id: str) -> dict[str, str]:
    """The sums of a status.json. Raises ValueError for one that was changed."""
    if status.get("run_id", run_id) != run_id:
        raise ValueError(f"belongs to run {status['run_id']}")
    return _sums(status)


def read_environment(folder: Path) -> dict[str, Any]:
    """Read a run's env.json. Raises one of UNREADABLE where it was changed."""
    path, sums = folder / "env.json", dict[str, str]()
    with suppress(FileNotFoundError):  # no status: tables without their runs
        sums = sums_of(folder)
    return parse_record(path, read_whole(path, sums))


def curve_schema(names: list[str]) -> pa.Schema:
    """The types of these columns of a curve."""
    return pa.schema([(name, pa.int64() if name in WHOLE else pa.float64()) for name in names])


def _status(path: Path) -> dict[str, Any]:
    """Raises one of UNREADABLE for anything else."""
    content = {"reason": "", **read_record(path)}
    if content.get("status") not in list(Status):
        raise ValueError(f"unknown status {content.get('status')!r}; known: {', '.join(Status)}")
    if not isinstance(content["reason"], str):
        raise ValueError("the reason is not text")
    if type(content.get("attempts", 1)) is not int:
        raise ValueError("attempts: not a whole number")
    return content


def _sums(status: Mapping[str, Any]) -> dict[str, str]:
    """The sums in a status.json. Raises ValueError where they are wrong or incomplete."""
    check_sum(status)
    sums = status.get("sha256", {})
    if not isinstance(sums, dict) or not sums.keys() <= set(_SUMMED):
        raise ValueError("sha256: not the sums of the files of a run")
    if sums and SUM not in status:
        raise ValueError(f"no {SUM}, and sums of files")
    return sums


def _curve(content: bytes) -> pa.Table:
    """Raises one of UNREADABLE for anything else."""
    table = parquet.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    names = table.column_names
    missing = [name for name in TOTALS if name not in names]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}")
    if len(set(names)) < len(names) or _TAKEN & set(names):
        raise ValueError(f"columns {', '.join(names)}: not those of a curve")
    odd = [field.name for field in table.schema if not _is_number(field.type)]
    if odd:
        raise ValueError(f"not numbers: {', '.join(odd)}")
    return table.cast(curve_schema(names))


def _is_number(kind: pa.DataType) -> bool:
    """Also true for null: the type of a column without measurements."""
    of_numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return bool(of_numbers or pa.types.is_null(kind))


#: A curve without rows, with every column.
NO_CURVE = curve_schema(list(CURVE_COLUMNS)).empty_table()

"""The records of an ablation as the bytes of a ZIP archive, and back, to the last bit.

    ablation.json      names, spec, arms, targets, comparisons, budgets
    runs.parquet  curves.parquet
    environments.json  columns, and the values of every run that has ended
    files.json         run id -> its spec.yaml, and the SHA-256 of each of its files

To read it, zipfile, json and a reader of parquet suffice.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from pydantic import BaseModel, ConfigDict, create_model

from bdhf.records import DIAGNOSTICS, Records
from bdhf.records.disk.checksums import digest
from bdhf.report.embedded.size_limits import read_member, read_parquet, refuse_large

#: What reading any archive may raise, in addition to `UNREADABLE`.
BROKEN = (BadZipFile, EOFError, NotImplementedError)

#: The files of a run whose SHA-256 are carried.
ARCHIVED_FILES = ("spec.yaml", "status.json", "env.json", "curve.parquet")

#: The number of evaluations per run whose diagnostics a light archive keeps.
_MOST_EVALUATIONS = 25

_TABLES = ("runs", "curves", "environments")

#: Fields that archives of older versions lack.
_LATER = ("tuning", "safety_seconds", "twins")

_HINTS = get_type_hints(Records)
_Ablation: type[BaseModel] = create_model(
    "_Ablation",
    __config__=ConfigDict(arbitrary_types_allowed=True, extra="forbid"),
    **{field.name: (_HINTS[field.name], field.default if field.name in _LATER else ...)
       for field in fields(Records) if field.name not in _TABLES},
)  # type: ignore[call-overload]  # fmt: skip


class RunFiles(BaseModel):
    """The spec of a run and the SHA-256 of each of its files, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: str
    sha256: Mapping[str, str]


def files_of(folder: Path, records: Records) -> dict[str, RunFiles]:
    """The files of every run that has ended; a run without a readable spec.yaml has none."""
    ended = records.runs.loc[records.runs["status"].notna(), "run_id"].drop_duplicates()
    files: dict[str, RunFiles] = {}
    for run_id in map(str, ended):
        contents = {name: content_of(folder / "runs" / run_id / name) for name in ARCHIVED_FILES}
        try:
            spec = (contents["spec.yaml"] or b"").decode()
        except UnicodeDecodeError:
            continue
        if spec:
            sums = {name: digest(content) for name, content in contents.items() if content}
            files[run_id] = RunFiles(spec=spec, sha256=sums)
    return files


def content_of(path: Path) -> bytes | None:
    """The bytes of a file; None where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def pack(records: Records, files: Mapping[str, RunFiles]) -> bytes:
    """Pack the records into an archive; the same records give the same bytes."""
    texts = {
        "ablation.json": _ablation(records),
        "environments.json": _rows(records.environments),
        "files.json": json.dumps({name: entry.model_dump() for name, entry in files.items()}),
    }
    tables = {"runs.parquet": records.runs, "curves.parquet": records.curves}
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, text in texts.items():
            archive.writestr(ZipInfo(name), text.encode(), ZIP_DEFLATED, 9)
        for name, table in tables.items():
            archive.writestr(ZipInfo(name), _parquet(table), ZIP_STORED)
    return buffer.getvalue()


def unpack(content: bytes) -> tuple[Records, dict[str, RunFiles]]:
    """Read an archive. Raises one of UNREADABLE or BROKEN for invalid content."""
    with ZipFile(io.BytesIO(content)) as archive:
        refuse_large(archive)
        ablation = _Ablation.model_validate_json(read_member(archive, "ablation.json"))
        environments = json.loads(read_member(archive, "environments.json"))
        files = json.loads(read_member(archive, "files.json"))
        runs = _table(read_member(archive, "runs.parquet"))
        curves = _table(read_member(archive, "curves.parquet"))
    records = Records(
        **{name: getattr(ablation, name) for name in type(ablation).model_fields},
        runs=runs,
        curves=curves,
        environments=pd.DataFrame(environments["rows"], columns=environments["columns"] or None),
    )
    return records, {name: RunFiles.model_validate(entry) for name, entry in files.items()}


def lighten(curves: pd.DataFrame) -> pd.DataFrame:
    """Round diagnostics to float32, and keep those of at most 25 evaluations per run.

    These are evenly spaced and include the first and the last. All other columns stay unchanged.
    `curves`: the rows of one run, or of all runs with their `arm` and `seed`.
    """
    names = [name for name in DIAGNOSTICS if name in curves]
    keys = [name for name in ("arm", "seed") if name in curves]
    group: Any = curves.groupby(keys, sort=False) if keys else curves.groupby(lambda _: 0)
    lengths = group.cumcount() + group.cumcount(ascending=False) + 1
    kept = _kept(group.cumcount().to_numpy(), lengths.to_numpy())
    light = curves.copy()
    for name in names:
        values = curves[name].to_numpy(float, na_value=np.nan)
        with np.errstate(over="ignore", under="ignore"):
            rounded = values.astype(np.float32).astype(float)
        rounded = np.where(np.isfinite(rounded), rounded, values)  # values beyond float32 stay
        light[name] = np.where(kept, rounded, np.nan)
    return light


def _kept(row: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Whether each row is among the evenly spaced rows of its run: (rows,)."""
    most = _MOST_EVALUATIONS - 1
    last = np.maximum(lengths - 1, 1)
    nearest = np.rint(np.rint(row * most / last) * last / most)
    return np.asarray((lengths <= _MOST_EVALUATIONS) | (nearest == row))


def _ablation(records: Records) -> str:
    values = {name: getattr(records, name) for name in _Ablation.model_fields}
    return _Ablation.model_validate(values).model_dump_json()


def _rows(table: pd.DataFrame) -> str:
    """A table of plain values as JSON; rows omit missing values."""
    rows = [
        {key: value for key, value in row.items() if not _missing(value)}
        for row in table.to_dict("records")
    ]
    return json.dumps({"columns": list(table.columns), "rows": rows})


def _missing(value: Any) -> bool:
    return value is pd.NA or (isinstance(value, float) and value != value)


def _parquet(table: pd.DataFrame) -> bytes:
    """The table as parquet, with byte stream split of floats, which compresses exponents well."""
    content = pa.Table.from_pandas(table, preserve_index=False)
    floats = [field.name for field in content.schema if pa.types.is_floating(field.type)]
    others = [name for name in content.column_names if name not in floats]
    buffer = io.BytesIO()
    parquet.write_table(
        content,
        buffer,
        compression="zstd",
        compression_level=9,
        use_dictionary=others,
        use_byte_stream_split=floats,
    )
    return buffer.getvalue()


def _table(content: bytes) -> pd.DataFrame:
    table = read_parquet(content)
    table.validate(full=True)
    frame: pd.DataFrame = table.to_pandas()
    return frame

"""From the folders of runs to two tables: what is planned, what has ended, and how.

Run folders are the truth. One that is torn, or not ours, is left out and said to be so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import parquet

from bdhf.records.files import check_version, read_table, write_table
from bdhf.records.schema import (
    CURVE_COLUMNS,
    DIAGNOSTICS,
    RECORDS_VERSION,
    InputError,
    Status,
)

_COUNTS = ("update", "samples")  # whole numbers

#: Times that `collect` looks again whether more has finished while it wrote.
_LOOKS = 10


@dataclass(frozen=True)
class _Found:
    """What there is of a run: its status.json and its curve; or why it does not count."""

    status: dict[str, Any] | None
    curve: pd.DataFrame | None = None
    torn: str = ""


def planned(folder: str | Path) -> pd.DataFrame:
    """Give `arm, seed, run_id, status, reason` of every planned cell, as the disk has it now.

    A cell that the plan leaves out, and that has not been run before, is `skipped`. Raises
    InputError when the folder has no plan.
    """
    return _planned(Path(folder), curves=False)[0]


def run_status(folder: str | Path, run_id: str) -> dict[str, Any] | None:
    """Give the content of a run's status.json, or None where there is no whole run."""
    return _find(Path(folder) / "runs" / run_id, curves=False).status


def ended(folder: str | Path, run_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of these runs, the status.json of those that are there, whole; looks at no other folder."""
    there = _stamps(Path(folder) / "runs")
    found = {run_id: run_status(folder, run_id) for run_id in run_ids if run_id in there}
    return {run_id: status for run_id, status in found.items() if status is not None}


def collect(folder: str | Path) -> None:
    """Write runs.parquet and curves.parquet from the plan and whatever has finished of it.

    Several processes may do so at once: each looks again when it has written, so that the last
    one is right. Raises InputError when the folder has no plan.
    """
    folder = Path(folder)
    for _ in range(_LOOKS):
        before = _stamps(folder / "runs")
        _write(folder, *_planned(folder, curves=True))
        if _stamps(folder / "runs") == before:
            return


def _planned(folder: Path, *, curves: bool) -> tuple[pd.DataFrame, dict[str, _Found]]:
    check_version(folder)
    path = folder / "plan.parquet"
    if not path.exists():
        raise InputError([f"{folder}: no plan.parquet: `bdhf run SPEC --out {folder}` makes it"])
    plan = read_table(path)
    missing = [name for name in ("arm", "seed", "run_id") if name not in plan]
    if missing:
        raise InputError([f"{path}: no column {', '.join(missing)}; `bdhf run` writes it anew"])
    skips = plan.pop("skip") if "skip" in plan else [""] * len(plan)  # older plans skip nothing
    there = _stamps(folder / "runs")
    found = {
        run_id: _find(folder / "runs" / run_id, curves=curves)
        for run_id in dict.fromkeys(plan["run_id"])
        if run_id in there
    }
    statuses = [
        _status(found.get(run_id), skip) for run_id, skip in zip(plan["run_id"], skips, strict=True)
    ]
    plan["status"] = pd.Series([status for status, _ in statuses], dtype=object)
    plan["reason"] = [reason for _, reason in statuses]
    return plan, found


def _status(found: _Found | None, skip: str) -> tuple[str | None, str]:
    """Status and reason of a cell."""
    if found is not None and found.status is not None:
        return str(found.status["status"]), str(found.status.get("reason", ""))
    if skip:
        return str(Status.SKIPPED), skip
    return None, found.torn if found is not None and found.torn else "not run yet"


def _stamps(runs: Path) -> dict[str, int]:
    """What lies in the folder of runs, and when each was changed last."""
    found: dict[str, int] = {}
    with suppress(OSError), os.scandir(runs) as entries:
        for entry in entries:
            with suppress(OSError):  # it goes while one looks
                found[entry.name] = entry.stat().st_mtime_ns
    return found


def _find(run: Path, *, curves: bool) -> _Found:
    """Read a run: whole, or not at all. Of its curve the head alone, unless `curves`."""
    try:
        status = json.loads((run / "status.json").read_text(encoding="utf-8"))
        Status(status["status"])
        version = int(status.get("records", 0))
        if version > RECORDS_VERSION:
            return _Found(None, torn=f"written by a newer bdhf (records {version}): upgrade")
        if curves:
            return _Found(status, _curve(run / "curve.parquet"))
        parquet.read_metadata(run / "curve.parquet")
    except FileNotFoundError:
        gone = [name for name in ("status.json", "curve.parquet") if not (run / name).exists()]
        return _Found(None, torn=f"torn: no {' and no '.join(gone)}" if run.is_dir() else "")
    except Exception as error:  # whatever tore it, or whosever it is
        return _Found(None, torn=f"torn: {str(error).splitlines()[0] if str(error) else error!r}")
    return _Found(status)


def _curve(path: Path) -> pd.DataFrame:
    """A curve. Raises ValueError for another table."""
    curve: pd.DataFrame = parquet.read_table(path).to_pandas()
    if not {"update", "samples", "val_loss"} <= set(curve.columns):
        raise ValueError("curve.parquet is no curve")
    return curve.astype({name: float for name in curve.columns if name not in _COUNTS})


def _write(folder: Path, cells: pd.DataFrame, found: dict[str, _Found]) -> None:
    """Write both tables."""
    runs, curves = [], []
    for cell in cells.to_dict("records"):
        curve = found[cell["run_id"]].curve if cell["run_id"] in found else None
        if curve is None:  # not run yet, or never
            runs.append(cell)
            continue
        last = curve.drop(columns=list(DIAGNOSTICS), errors="ignore").tail(1)
        runs.append(cell | {name: value.iloc[0] for name, value in last.items() if len(value)})
        curves.append(curve.assign(arm=cell["arm"], seed=cell["seed"], run_id=cell["run_id"]))
    totals = [name for name in CURVE_COLUMNS if name not in DIAGNOSTICS]
    write_table(folder / "runs.parquet", _order(pd.DataFrame(runs), ["status", "reason", *totals]))
    filled = [curve for curve in curves if len(curve)]
    table = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
    write_table(folder / "curves.parquet", _order(table, list(CURVE_COLUMNS)))


def _order(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """These columns first, made where they are missing."""
    first = ["arm", "seed", "run_id", *columns]
    ordered = table.reindex(columns=[*first, *(name for name in table if name not in first)])
    return ordered.astype({"update": "Int64", "samples": "Int64"})  # also where a run has none

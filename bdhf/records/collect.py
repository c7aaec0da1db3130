"""From run folders to tables: every planned cell with its status, and all curves in one table.

Only folders that the plan names are opened, each of their files once. All others are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.types import is_integer_dtype, is_string_dtype

from bdhf.records.columns import CELL, DIAGNOSTICS
from bdhf.records.disk.checksums import table_bytes
from bdhf.records.disk.files import InputError, in_brief, read_table, write_table
from bdhf.records.disk.version import refuse_newer
from bdhf.records.run import NO_CURVE, Run, Uncounted, read_run, run_status
from bdhf.records.schema import Status
from bdhf.records.tuning import refuse_study
from bdhf.records.uncounted import NOT_RUN

#: The tables that are derived from the run folders.
_COLLECTED = ("runs.parquet", "curves.parquet")

#: How often `collect` repeats because runs end meanwhile. The process that ends the last run
#: collects after it, so tables are outdated only briefly if this one stops.
_ROUNDS = 20

#: The plan and the names in `runs` -> what changes when a file or folder is replaced.
_Marks = dict[str, tuple[int, int]]


def planned(folder: str | Path, *, checked: bool = True) -> pd.DataFrame:
    """Give `arm, seed, run_id, status, reason` of every planned cell, as it is on disk now.

    Without a whole run the status is None, and the reason is that it is missing, or its fault. A
    cell that the plan leaves out, and that has not been run before, is `skipped`. `checked` False
    also counts runs whose files differ from what was written. Raises InputError when the folder
    has no plan, or one of a newer version.
    """
    folder = Path(folder)
    plan, marks = _plan(folder), _marks(folder)
    statuses: dict[str, Mapping[str, Any] | Uncounted] = {}
    for run_id in plan["run_id"].unique():
        if run_id in marks:
            run = read_run(folder / "runs" / run_id, checked=checked)
            statuses[run_id] = run.status if isinstance(run, Run) else run
    return _cells(plan, statuses)


def run_labels(cells: Iterable[tuple[str, int, str]]) -> dict[str, str]:
    """Run id -> the cells that share the run, in words; `cells` are `arm, seed, run_id`.

    >>> run_labels([("adam", 0, "a1"), ("twin", 0, "a1"), ("adam", 1, "b2")])
    {'a1': 'adam seed 0 = twin seed 0', 'b2': 'adam seed 1'}
    """
    names: dict[str, list[str]] = {}
    for arm, seed, run_id in cells:
        names.setdefault(run_id, []).append(f"{arm} seed {seed}")
    return {run_id: " = ".join(labels) for run_id, labels in names.items()}


def torn(folder: str | Path, run_id: str) -> str:
    """Give the reason why an existing run does not count; "" for a whole run, and for none."""
    path = Path(folder) / "runs" / run_id
    run = read_run(path) if path.exists() else None
    return run.reason if isinstance(run, Uncounted) else ""


def ended(folder: str | Path, run_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The status.json of those of these runs that are whole; no other folder is opened.

    Raises InputError for a run of a newer version, which must not be made again.
    """
    marks = _marks(Path(folder))
    statuses = {run_id: run_status(folder, run_id) for run_id in run_ids if run_id in marks}
    return {run_id: status for run_id, status in statuses.items() if status is not None}


def collect(folder: str | Path) -> None:
    """Write runs.parquet and curves.parquet from the plan and its finished runs.

    When several processes collect at once, the last one to write has read every ended run.
    Raises InputError when the folder has no plan, or one of a newer version.
    """
    folder = Path(folder)
    cache: dict[tuple[str, tuple[int, int]], Run | Uncounted] = {}
    seen: _Marks | None = None
    for _ in range(_ROUNDS):
        marks = _marks(folder)  # before the plan and the runs are read: later changes differ here
        if marks == seen:  # ... and are read in the next round
            return
        plan, seen = _plan(folder), marks
        runs: dict[str, Run | Uncounted] = {}
        for run_id in plan["run_id"].unique():
            if run_id in marks:
                key = run_id, marks[run_id]
                cache[key] = cache.get(key) or read_run(folder / "runs" / run_id)
                runs[run_id] = cache[key]
        for name, table in zip(_COLLECTED, _tables(plan, runs), strict=True):
            write_table(folder / name, table)


def collected(folder: str | Path) -> dict[str, bytes]:
    """The tables that `collect` would write now: file name -> content. Writes nothing.

    Raises InputError when the folder has no plan, or one of a newer version.
    """
    folder = Path(folder)
    plan, marks = _plan(folder), _marks(folder)
    runs = {run_id: read_run(folder / "runs" / run_id)
             for run_id in plan["run_id"].unique() if run_id in marks}  # fmt: skip
    tables = _tables(plan, runs)
    return {name: table_bytes(table) for name, table in zip(_COLLECTED, tables, strict=True)}


def _plan(folder: Path) -> pd.DataFrame:
    """The rows of plan.parquet: `arm, seed, run_id, skip`."""
    refuse_newer(folder)
    path = folder / "plan.parquet"
    if not path.exists():
        refuse_study(folder)
        raise InputError([f"{folder}: no plan.parquet: `bdhf run SPEC --out {folder}` writes it"])
    plan = read_table(path, CELL)
    skip = plan["skip"].fillna("") if "skip" in plan else ""  # older plans skip nothing
    plan = plan[list(CELL)].assign(skip=skip)
    if is_integer_dtype(plan["seed"]) and all(map(is_string_dtype, _texts(plan))):
        return plan
    raise InputError([f"{path}: not a whole plan; `bdhf run` rewrites it"])


def _texts(plan: pd.DataFrame) -> list[pd.Series[Any]]:
    return [column for name, column in plan.items() if name != "seed"]


def _marks(folder: Path) -> _Marks:
    """The plan and the entries of `runs`. Raises InputError when `runs` cannot be read."""
    runs = folder / "runs"
    try:
        with os.scandir(runs) as entries:
            paths = [Path(entry) for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:  # no run has ended yet
        paths = []
    except OSError as error:
        raise InputError([f"{runs}: cannot be read: {in_brief(error)}"]) from None
    marks: _Marks = {}
    for path in [folder / "plan.parquet", *paths]:
        with suppress(OSError):  # it is being replaced: the next round reads it
            status = path.lstat()
            marks[path.name] = status.st_ino, status.st_mtime_ns
    return marks


def _cells(
    plan: pd.DataFrame, statuses: Mapping[str, Mapping[str, Any] | Uncounted]
) -> pd.DataFrame:
    """The plan with the status and reason of every cell instead of `skip`."""
    rows = [
        _status_and_reason(statuses.get(run_id), skip)
        for run_id, skip in zip(plan["run_id"], plan["skip"], strict=True)
    ]
    table = pd.DataFrame(rows, columns=["status", "reason"], index=plan.index)
    text = table.astype(plan["arm"].dtype)  # also where no cell has a status
    return pd.concat([plan.drop(columns="skip"), text], axis=1)


def _status_and_reason(
    status: Mapping[str, Any] | Uncounted | None, skip: str
) -> tuple[str | None, str]:
    if isinstance(status, Mapping):
        return status["status"], status["reason"]
    if skip:
        return str(Status.SKIPPED), skip
    return None, NOT_RUN if status is None else status.reason


def _tables(
    plan: pd.DataFrame, folders: Mapping[str, Run | Uncounted]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of runs and of curves."""
    whole = {run_id: run for run_id, run in folders.items() if isinstance(run, Run)}
    statuses = {i: run.status if isinstance(run, Run) else run for i, run in folders.items()}
    cells = _cells(plan, statuses).reset_index(drop=True)
    curves = [whole[i].curve if i in whole else NO_CURVE for i in cells["run_id"]]
    table = pa.concat_tables([NO_CURVE, *curves], promote_options="default")
    rows = table.to_pandas(
        types_mapper={pa.int64(): pd.Int64Dtype()}.get
    )  # whole numbers, also with missing values
    lengths = np.array([len(curve) for curve in curves], dtype=int)
    cell_of_row = np.repeat(np.arange(len(cells)), lengths)
    last = rows.iloc[lengths.cumsum()[lengths > 0] - 1].drop(columns=list(DIAGNOSTICS))
    runs = cells.join(last.set_index(cells.index[lengths > 0]))
    keys = cells[list(CELL)].iloc[cell_of_row].reset_index(drop=True)
    return runs, pd.concat([keys, rows], axis=1)

"""Compare the records of a page with a results folder: files by their SHA-256, and contents.

Every run in the table of the report is compared, even if the report carries no files of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from bdhf.records import Records, load, planned
from bdhf.records.bits import first_unlike
from bdhf.records.columns import CELL
from bdhf.records.disk.checksums import digest
from bdhf.records.run import Run, read_run
from bdhf.report.embedded.anonymous import anonymous, names_in
from bdhf.report.embedded.archive import content_of, lighten
from bdhf.report.embedded.encoding import EmbeddedRecords
from bdhf.report.embedded.redaction import redacted

_TABLES = ("runs", "curves", "environments")


@dataclass(frozen=True)
class FolderComparison:
    """The number of files compared with the carried sums, and the differences as text."""

    files: int
    differences: tuple[str, ...]


def compare_with_folder(embedded: EmbeddedRecords, folder: str | Path) -> FolderComparison:
    """Compare the carried records with a results folder: its spec, plan, files and curves.

    An anonymous report is compared with the folder without identifying values.

    Raises InputError for a folder without an ablation.
    """
    folder = Path(folder)
    there, cells = load(folder, checked=False).in_order(), planned(folder, checked=False)
    if embedded.anonymous:
        names, there = names_in(there), anonymous(there)
        cells = cells.assign(reason=[redacted(why, names) for why in cells["reason"]])
    differences = [
        *_asked(embedded.records.in_order(), there),
        *_cells(embedded.records.runs, cells),
        *_files(embedded, folder),
        *_contents(embedded, folder),
        *_environments(embedded.records, there),
    ]
    held = sum(
        name in embedded.summed for entry in embedded.files.values() for name in entry.sha256
    )
    return FolderComparison(held, tuple(differences))


def _asked(carried: Records, there: Records) -> Iterator[str]:
    """Differences in spec.yaml and plan.json."""
    for name in (field.name for field in fields(Records) if field.name not in _TABLES):
        carried_value, folder_value = getattr(carried, name), getattr(there, name)
        if carried_value != folder_value:
            values = (
                ""
                if name == "spec_text"
                else f": {carried_value!r} in the report, {folder_value!r} there"
            )
            yield f"spec.yaml or plan.json: {name} differs{values}"


def _cells(runs: pd.DataFrame, there: pd.DataFrame) -> Iterator[str]:
    """Runs of one side only, and runs with another end."""
    in_report, in_folder = _ends(runs), _ends(there)
    for key in dict.fromkeys([*in_report, *in_folder]):
        arm, seed, run_id = key
        name = f"{run_id} ({arm} seed {seed})"
        if key not in in_report:
            yield f"{name}: in the plan of the folder, not in the report"
        elif key not in in_folder:
            yield f"{name}: in the report, not in the plan of the folder"
        elif in_report[key] != in_folder[key]:
            yield f"{name}: {_end(in_report[key])} in the report, {_end(in_folder[key])} there"


def _ends(runs: pd.DataFrame) -> dict[tuple[str, int, str], tuple[str, str]]:
    columns = [*CELL, "status", "reason"]
    rows = runs[columns].astype(object).where(runs[columns].notna(), "").to_numpy().tolist()
    return {(arm, int(seed), run_id): (status, why) for arm, seed, run_id, status, why in rows}


def _end(end: tuple[str, str]) -> str:
    return " because ".join(repr(part) for part in end if part) or "nothing"


def _files(embedded: EmbeddedRecords, folder: Path) -> Iterator[str]:
    """Files that have changed since the page was made."""
    for run_id, entry in embedded.files.items():
        for name in embedded.summed:
            content, carried = content_of(folder / "runs" / run_id / name), entry.sha256.get(name)
            if carried and content is None:
                yield f"runs/{run_id}/{name}: missing"
            elif (digest(content) if content is not None else None) != carried:
                yield f"runs/{run_id}/{name}: differs"


def _run_ids(embedded: EmbeddedRecords) -> tuple[str, ...]:
    """Every run of the table, then other runs with carried files."""
    return tuple(dict.fromkeys([*map(str, embedded.records.runs["run_id"]), *embedded.files]))


def _contents(embedded: EmbeddedRecords, folder: Path) -> Iterator[str]:
    """Curves that differ from those in the files."""
    records = embedded.records
    curves = dict(list(records.curves.groupby(list(CELL), sort=False)))
    cells = records.runs[list(CELL)].itertuples(index=False, name=None)
    runs = {
        run_id: read_run(folder / "runs" / run_id, checked=False) for run_id in _run_ids(embedded)
    }
    for cell in cells:
        run = runs.get(cell[-1])
        if isinstance(run, Run):
            there = run.curve.to_pandas()
            there = lighten(there) if embedded.light else there
            yield from _curve(cell, curves.get(cell, there.iloc[:0]), there)


def _environments(carried: Records, there: Records) -> Iterator[str]:
    """Runs whose env.json differs."""
    places = {str(row["run_id"]): row for row in _rows(carried.environments)}
    for row in _rows(there.environments):
        if places.get(str(row["run_id"]), {}) != row:
            yield f"runs/{row['run_id']}/env.json: the report has another environment"


def _curve(cell: tuple[Any, ...], carried: pd.DataFrame, there: pd.DataFrame) -> Iterator[str]:
    """The first value that differs, or a difference in length."""
    arm, seed, run_id = cell
    where = f"runs/{run_id}/curve.parquet ({arm} seed {seed})"
    unlike = first_unlike(carried.reset_index(drop=True), there, ignored=CELL)
    if unlike is not None:
        what = f"{unlike.column} of evaluation {unlike.row}"
        yield f"{where}: {what} is {unlike.first!r} in the report, {unlike.other!r} there"
    elif len(carried) != len(there):
        yield f"{where}: {len(carried)} evaluations in the report, {len(there)} there"


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as in the files, without keys for values that a run did not record."""
    return [
        {str(key): value for key, value in row.items()
         if not (isinstance(value, float) and value != value)}
        for row in table.to_dict("records")
    ]  # fmt: skip

"""One run in full: from its folder, and from the plan that it is part of."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from bdhf.experiments.storage.claims import living
from bdhf.records import InputError, planned, rises_in, run_labels, torn
from bdhf.records.disk.files import UNREADABLE, UnreadableError, read_whole
from bdhf.records.run import SEALS, sums_of
from bdhf.text.formatting import in_full
from bdhf.text.printable import printable

#: Title -> key -> value, or a text that is printed as it is.
RunDetail = dict[str, dict[str, str] | str]

#: Runs that are named, at most, if the beginning of an id fits many.
_NAMED = 8


def find_run(run: str, results: Path | None) -> Path:
    """The folder of a run, from its path or from the beginning of its id. Raises InputError.

    `results` None: every folder in results/ is searched.
    """
    folder = Path(run)
    with suppress(OSError):  # not a valid name of a file
        if folder.is_dir() and (folder.resolve().parent.name == "runs" or _has_status(folder)):
            return folder
    folders = [results] if results else sorted(Path("results").glob("*"))
    start = "".join(letter for letter in run if letter.isalnum())  # no wildcards, no folders
    matches = [
        path
        for folder in folders if start and start == run
        for path in sorted((folder / "runs").glob(f"{start}*"))
        if path.is_dir()
    ]  # fmt: skip
    where = str(results) if results else "results/*"
    if not matches:
        waiting = [line for folder in folders if start for line in _waiting(folder, run)]
        none = f"{run}: no run id in {where} begins so; `bdhf status RESULTS` names failed runs"
        raise InputError(waiting[:_NAMED] or [none])
    if len(matches) > 1:
        names = ", ".join(map(str, matches[:_NAMED])) + (", …" if len(matches) > _NAMED else "")
        why = f"{len(matches)} run ids begin so; give a longer part, or one of {names}"
        raise InputError([f"{run}: {why}"])
    return matches[0]


def run_detail(folder: Path) -> RunDetail:
    """The content of a run's files, file by file; the reason for each that cannot be read."""
    home = folder.resolve()
    cells, why = _cells(home.parent.parent, home.name), torn(home.parent.parent, home.name)
    sums = _sums(folder)
    risen = rises_in(home.parent.parent, [home.name])
    detail: RunDetail = {
        str(folder): {
            "cells": ", ".join(cells) or "none of the plan",
            **({"whole": f"no: {why}"} if why else {}),
            **({"ended above its start": str(risen[home.name])} if risen else {}),
            **_read(folder / "status.json", _status, sums),
        },
        "spec": _read(folder / "spec.yaml", YAML(typ="safe", pure=True).load, sums),
        "last row of the curve": _last_row(folder / "curve.parquet", sums),
        "environment": _read(folder / "env.json", json.loads, sums),
    }
    trace = _trace(folder / "traceback.txt", sums)
    return {**detail, "traceback": trace} if trace else detail


def _sums(folder: Path) -> dict[str, str]:
    """The sums of the run's files; {} if they cannot be read."""
    try:
        return sums_of(folder)
    except (InputError, *UNREADABLE):
        return {}


def _status(text: str) -> Any:
    """The content of status.json, without its seals of files."""
    content = json.loads(text)
    if not isinstance(content, dict):
        return content
    return {key: value for key, value in content.items() if key not in SEALS}


def _trace(path: Path, sums: Mapping[str, str]) -> str:
    """The traceback; "" if none was written."""
    try:
        return printable(read_whole(path, sums).decode("utf-8", errors="replace"))
    except (InputError, *UNREADABLE) as error:
        if isinstance(error, FileNotFoundError) and path.name not in sums:
            return ""
        return f"{path.name}: {_why(error)}"


def _has_status(folder: Path) -> bool:
    return (folder / "status.json").is_file()


def _cells(results: Path, run_id: str) -> list[str]:
    """The cells of the plan that have this run."""
    try:
        cells = planned(results)
    except InputError:  # a run that was copied elsewhere is shown too
        return []
    rows = cells[cells["run_id"] == run_id]
    return [f"{row.arm} seed {row.seed}" for row in rows.itertuples()]


def _waiting(results: Path, start: str) -> Iterator[str]:
    """A line for each planned run that has not ended and whose id begins so."""
    try:
        cells = planned(results)
    except InputError:  # no folder, or no ablation
        return
    running = {claim.run_id for claim in living(results)}
    labels = run_labels(cells[["arm", "seed", "run_id"]].itertuples(index=False, name=None))
    reasons = cells.groupby("run_id")["reason"].first()
    for run_id, reason in reasons.items():
        if str(run_id).startswith(start):
            state = "under way" if run_id in running else reason
            yield f"{run_id}: {labels[str(run_id)]} in {results}: {state}"


def _read(path: Path, parse: Callable[[str], Any], sums: Mapping[str, str]) -> dict[str, str]:
    """The content of a file, key by key, or the reason why it cannot be read."""
    try:
        content = parse(read_whole(path, sums).decode("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"holds {type(content).__name__}, not keys and values")
        return {printable(key): printable(value) for key, value in _flat(content)}
    except Exception as error:  # a torn file may raise anything
        return {path.name: _why(error)}


def _last_row(path: Path, sums: Mapping[str, str]) -> dict[str, str]:
    try:
        curve = pd.read_parquet(io.BytesIO(read_whole(path, sums)))
        last = curve.tail(1).to_dict("records")
        row = {printable(str(key)): value for key, value in (last[0] if last else {}).items()}
        values = {
            key: printable(value) if isinstance(value, str) else in_full(value)
            for key, value in row.items()
            if not pd.isna(value)
        }
    except Exception as error:  # a torn file may raise anything
        return {path.name: _why(error)}
    return {"evaluations": str(len(curve)), **values}


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, UnreadableError):
        return printable(error.lines[0])
    why = next(iter(str(error).splitlines()), type(error).__name__)
    return printable(f"cannot be read: {why}")


def _flat(content: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Keys with dots, and values as JSON, without null and empty ones."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        elif value is not None and value != "":
            text = json.dumps(value, ensure_ascii=False, default=str)
            yield f"{before}{key}", value if isinstance(value, str) else text

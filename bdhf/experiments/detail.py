"""One run, told in full: from its folder alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from bdhf.records import InputError

Detail = dict[str, dict[str, str]]  # title -> key -> value


def find(run: str, results: Path | None) -> Path:
    """The folder of a run: itself, or the one whose id begins so. Raises InputError.

    `results` None: every folder in results/ is searched.
    """
    if (Path(run) / "status.json").is_file():
        return Path(run)
    folders = [results] if results else sorted(Path("results").glob("*"))
    found = [
        path
        for folder in folders
        for path in sorted((folder / "runs").glob(f"{_plain(run)}*"))
        if path.is_dir()
    ]
    where = str(results) if results else "results/*"
    if not found:
        raise InputError([f"{run}: no run begins so in {where}; `bdhf status RESULTS` names them"])
    if len({path.name for path in found}) > 1:
        names = ", ".join(path.name for path in found[:8])
        raise InputError([f"{run}: {len(found)} runs begin so in {where}: {names}"])
    return found[0]


def detail(folder: Path) -> Detail:
    """What a run's files say, file by file; a file that cannot be read says so."""
    trace = folder / "traceback.txt"
    return {
        str(folder): _read(folder / "status.json", json.loads),
        "spec": _read(folder / "spec.yaml", YAML(typ="safe", pure=True).load),
        "last row of the curve": _last_row(folder / "curve.parquet"),
        "environment": _read(folder / "env.json", json.loads),
        **({"traceback": dict(_lines(trace))} if trace.is_file() else {}),
    }


def _plain(text: str) -> str:
    """A text without what a glob takes for wildcards or folders."""
    return "".join(letter for letter in text if letter.isalnum()) or "-"


def _read(path: Path, parse: Any) -> dict[str, str]:
    try:
        content = parse(path.read_text(encoding="utf-8"))
        return dict(_flat(content)) if isinstance(content, dict) else {"": str(content)}
    except Exception as error:  # whatever tore it
        return {path.name: f"cannot be read: {str(error).splitlines()[0]}"}


def _last_row(path: Path) -> dict[str, str]:
    try:
        curve = pd.read_parquet(path)
    except Exception as error:  # whatever tore it
        return {path.name: f"cannot be read: {str(error).splitlines()[0]}"}
    last = curve.tail(1).to_dict("records")
    row = last[0] if last else {}
    rows = {str(key): f"{value:g}" for key, value in row.items() if value == value}
    return {"evaluations": str(len(curve)), **rows}


def _flat(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Keys with dots, and values as JSON has them; nothing that is null."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        elif value is not None:
            yield before + str(key), value if isinstance(value, str) else json.dumps(value)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        yield str(number), line

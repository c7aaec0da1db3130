"""A results folder on disk: runs that exist whole or not at all, and the tables made from them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from bdhf.experiments.plan import Cell, RunSpec, to_table
from bdhf.experiments.run import Outcome
from bdhf.records import CURVE_COLUMNS, InputError, Status, write_atomically, write_table

#: Columns of a curve that tell of one update, not of the run up to there.
DIAGNOSTICS = CURVE_COLUMNS[CURVE_COLUMNS.index("grad_norm") :]
_RUN_COLUMNS = ["status", "reason", *(c for c in CURVE_COLUMNS if c not in DIAGNOSTICS)]


@dataclass(frozen=True)
class Store:
    """The results of one ablation in `folder`."""

    folder: Path

    @property
    def runs(self) -> Path:
        """The folder with one folder per finished run."""
        return self.folder / "runs"

    def status(self, run_id: str) -> dict[str, Any] | None:
        """Give the content of a run's status.json, or None where there is no whole run."""
        path = self.runs / run_id / "status.json"
        try:
            status: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return status

    def unfinished(self, cells: Collection[Cell], retry: bool = False) -> list[RunSpec]:
        """Give the runs that are still to do, each once, in the order of the plan.

        `retry` counts what ended as oom, error, timeout or skipped as still to do.
        """
        todo: dict[str, RunSpec] = {}
        for cell in cells:
            status = self.status(cell.run.run_id)
            if status is None or (retry and Status(status["status"]).is_missing):
                todo[cell.run.run_id] = cell.run
        return list(todo.values())

    def planned(self) -> pd.DataFrame:
        """Give `arm, seed, run_id, status, reason` of every planned cell, as the disk has it now.

        Raises InputError when the folder has no plan.
        """
        path = self.folder / "plan.parquet"
        if not path.exists():
            raise InputError([f"{self.folder}: no plan.parquet; `bdhf run SPEC` makes it"])
        plan = pd.read_parquet(path)
        found = [self.status(run_id) or {} for run_id in plan["run_id"]]
        for key in ("status", "reason"):
            plan[key] = [status.get(key) for status in found]
        return plan

    def begin(self, spec_text: str, cells: tuple[Cell, ...]) -> None:
        """Write what the ablation is, and sweep away what a killed process left half-written."""
        self.runs.mkdir(parents=True, exist_ok=True)
        for leftover in self.runs.glob(".tmp-*"):
            if _is_dead(leftover.name):
                shutil.rmtree(leftover, ignore_errors=True)
        write_atomically(self.folder / "spec.yaml", spec_text.encode("utf-8"))
        write_table(self.folder / "plan.parquet", to_table(cells))

    def write(
        self, run: RunSpec, outcome: Outcome, env: dict[str, Any], times: dict[str, Any]
    ) -> None:
        """Write a run's folder under a temporary name, then rename it."""
        self.runs.mkdir(parents=True, exist_ok=True)
        prefix = f".tmp-{socket.gethostname()}-{os.getpid()}-"
        temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=self.runs))
        try:
            _write_run(temporary, run, outcome, env, times)
            temporary.chmod(0o755)
            final = self.runs / run.run_id
            if final.exists():  # a retry: the old outcome makes way for the new
                shutil.rmtree(final)
            temporary.rename(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def collect(self, cells: tuple[Cell, ...]) -> None:
        """Write runs.parquet and curves.parquet from whatever has finished."""
        runs: list[dict[str, Any]] = []
        curves: list[pd.DataFrame] = []
        for cell in cells:
            run_id = cell.run.run_id
            who: dict[str, Any] = {"arm": cell.arm, "seed": cell.seed, "run_id": run_id}
            status = self.status(run_id)
            if status is None:
                runs.append({**who, "status": None, "reason": "not run yet"})
                continue
            curve = pd.read_parquet(self.runs / run_id / "curve.parquet")
            told = {"status": status["status"], "reason": status["reason"]}
            runs.append({**who, **told, **_end(curve)})
            curves.append(curve.assign(**who))
        write_table(self.folder / "runs.parquet", _order(pd.DataFrame(runs), _RUN_COLUMNS))
        filled = [curve for curve in curves if len(curve)]
        table = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
        write_table(self.folder / "curves.parquet", _order(table, list(CURVE_COLUMNS)))


def _end(curve: pd.DataFrame) -> dict[str, Any]:
    """Where a curve ends: the totals of every axis, the losses and the metrics."""
    last = curve.drop(columns=list(DIAGNOSTICS)).tail(1)
    return {str(name): values.iloc[0] for name, values in last.items() if len(values)}


def _order(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """These columns first, made where they are missing."""
    first = ["arm", "seed", "run_id", *columns]
    return table.reindex(columns=[*first, *(name for name in table if name not in first)])


def _write_run(
    folder: Path, run: RunSpec, outcome: Outcome, env: dict[str, Any], times: dict[str, Any]
) -> None:
    with (folder / "spec.yaml").open("w", encoding="utf-8") as file:
        yaml = YAML()
        yaml.default_flow_style = False
        yaml.dump(run.model_dump(mode="json"), file)
    _write_json(folder / "env.json", env)
    outcome.curve.to_parquet(folder / "curve.parquet", index=False)
    if outcome.trace:
        (folder / "traceback.txt").write_text(outcome.trace, encoding="utf-8")
    status = {"status": str(outcome.status), "reason": outcome.reason, **times}
    _write_json(folder / "status.json", status)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _is_dead(name: str) -> bool:
    """Whether a temporary folder belongs to a process of this machine that is gone."""
    host, _, rest = name.removeprefix(".tmp-").rpartition("-")[0].rpartition("-")
    if host != socket.gethostname() or not rest.isdigit():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False

"""A results folder on disk, as it is written: runs that exist whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bdhf.experiments.plan import Cell, Plan, RunSpec, to_table
from bdhf.experiments.run import Outcome
from bdhf.records import (
    PLAN_INDEX,
    RECORDS_VERSION,
    InputError,
    PlanIndex,
    Status,
    collect,
    run_status,
    write_atomically,
    write_table,
)


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
        return run_status(self.folder, run_id)

    def has_outcome(self, run_id: str) -> bool:
        """Whether a run is done or diverged, so that nothing may replace it."""
        status = self.status(run_id)
        return status is not None and not Status(status["status"]).is_missing

    def unfinished(self, cells: Collection[Cell], retry: bool = False) -> list[RunSpec]:
        """Give the runs that are still to do, each once, in the order of the plan.

        A cell that the plan skips is never one of them. `retry` counts what ended as oom, error,
        timeout or skipped as still to do.
        """
        todo: dict[str, RunSpec] = {}
        for cell in cells:
            run_id = cell.run.run_id
            ended = self.has_outcome(run_id) if retry else self.status(run_id) is not None
            if not ended and not cell.skip:
                todo[run_id] = cell.run
        return list(todo.values())

    def begin(self, spec_text: str, plan: Plan) -> None:
        """Write what the ablation is, and sweep away what a killed process left half-written.

        Raises InputError when the folder cannot be made.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError([f"{self.folder}: cannot write results: {error.strerror}"]) from None
        for leftover in self.runs.glob(".tmp-*"):
            if _is_dead(leftover.name):
                shutil.rmtree(leftover, ignore_errors=True)
        write_atomically(self.folder / "spec.yaml", spec_text.encode("utf-8"))
        index = PlanIndex(arms=plan.arms, comparisons=plan.comparisons)
        write_atomically(self.folder / PLAN_INDEX, index.model_dump_json(indent=1).encode("utf-8"))
        write_table(self.folder / "plan.parquet", to_table(plan.cells))
        collect(self.folder)  # so that no table is older than the spec it stands beside

    def write(
        self, run: RunSpec, outcome: Outcome, env: dict[str, Any], times: dict[str, Any]
    ) -> None:
        """Write a run's folder under a temporary name, then rename it.

        An outcome that is there already stays, unless it is missing data or torn.
        """
        self.runs.mkdir(parents=True, exist_ok=True)
        temporary = self._temporary()
        try:
            _write_run(temporary, run, outcome, env, times)
            temporary.chmod(0o755)
            self._install(temporary, run.run_id)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _install(self, temporary: Path, run_id: str) -> None:
        """Rename into place; another process may be doing the same at this moment."""
        final = self.runs / run_id
        while True:
            if self.has_outcome(run_id):
                return
            old = self._temporary()
            try:
                with suppress(FileNotFoundError):
                    final.rename(old)  # onto an empty folder, which a rename replaces
                temporary.rename(final)
                return
            except OSError as error:  # another outcome came between: look at that one
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            finally:
                shutil.rmtree(old, ignore_errors=True)

    def _temporary(self) -> Path:
        prefix = f".tmp-{socket.gethostname()}-{os.getpid()}-"
        return Path(tempfile.mkdtemp(prefix=prefix, dir=self.runs))


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
    _write_json(folder / "status.json", {"records": RECORDS_VERSION, **status})


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

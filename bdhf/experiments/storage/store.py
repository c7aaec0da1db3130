"""The writer of a results folder: every run exists whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bdhf.experiments.plan.expand import Cell, Plan, plan_table
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.run.execute import Outcome
from bdhf.experiments.storage.claims import release_ended
from bdhf.records import (
    PLAN_INDEX,
    RECORDS_VERSION,
    PlanIndex,
    Status,
    Tuned,
    collect,
    ended,
    refuse_newer,
    remove_leftovers,
    run_status,
    temporary_folder,
    unwritable,
    write_atomically,
    write_table,
)
from bdhf.records.disk.checksums import digest
from bdhf.records.disk.files import keep_names, write_durably
from bdhf.records.run import sealed

#: Whether a run that has ended with this status.json is to be repeated.
TryAgain = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True)
class Store:
    """The results of one ablation in `folder`."""

    folder: Path

    @property
    def runs(self) -> Path:
        """The folder with one folder per finished run."""
        return self.folder / "runs"

    @property
    def checkpoints(self) -> Path:
        """The folder with the checkpoints of runs under way."""
        return self.folder / "checkpoints"

    @property
    def aside(self) -> Path:
        """The folder with stale runs that were repeated."""
        return self.folder / "stale"

    def status(self, run_id: str) -> dict[str, Any] | None:
        """The content of a run's status.json; None if there is no whole run."""
        return run_status(self.folder, run_id)

    def has_outcome(self, run_id: str) -> bool:
        """Whether a run is done or diverged, so that nothing may replace it."""
        status = self.status(run_id)
        return status is not None and not Status(status["status"]).is_missing

    def unfinished(
        self, cells: Collection[Cell], again: TryAgain = lambda status: False
    ) -> list[RunSpec]:
        """The runs that are still to do, each once, in the order of the plan."""
        return list(self.left(cells, again).values())

    def left(
        self, cells: Collection[Cell], again: TryAgain = lambda status: False
    ) -> dict[str, RunSpec]:
        """The runs that are still to do, by id: in the order of the plan, new ones first.

        Cells that the plan skips are left out. `again` decides which failed runs are to do.
        """
        todo = {cell.run_id: cell.run for cell in cells if not cell.skip}
        retried: dict[str, RunSpec] = {}
        for run_id, status in ended(self.folder, list(todo)).items():
            run = todo.pop(run_id)
            if Status(status["status"]).is_missing and again(status):
                retried[run_id] = run
        return todo | retried

    def begin(self, spec_text: str, plan: Plan, tuning: Tuned | None = None) -> None:
        """Write spec and plan, and remove what a killed process left half-written.

        `tuning`: the study of its settings; None: its spec names no study.

        Raises StorageError if nothing can be written, and InputError for a folder of a newer
        version.
        """
        with self.writing():
            self.runs.mkdir(parents=True, exist_ok=True)
            refuse_newer(self.folder)
            self.sweep()
            index = PlanIndex(
                arms=plan.arms, comparisons=plan.comparisons, tuning=tuning, twins=plan.twins
            )
            later = {"tuning": tuning, "twins": plan.twins}  # unknown to older versions
            left_out = {key for key, value in later.items() if not value}
            content = index.model_dump_json(indent=1, exclude=left_out).encode("utf-8")
            asked = {"spec.yaml": spec_text.encode("utf-8"), PLAN_INDEX: content}
            for name, text in asked.items():
                write_atomically(self.folder / name, text)
            sums = {name: digest(text) for name, text in asked.items()}
            write_table(self.folder / "plan.parquet", plan_table(plan.cells), sums)
            collect(self.folder)  # so that no table is older than the spec

    def end(self) -> None:
        """Sweep once more, and collect the tables. Raises StorageError."""
        with self.writing():
            self.sweep()
            collect(self.folder)

    def sweep(self) -> None:
        """Remove files and claims that ended processes left, and checkpoints of ended runs."""
        folders = (self.folder, self.runs, self.checkpoints)
        remove_leftovers((*folders, self.folder / "claims", self.folder / "figures"))
        with suppress(OSError):  # without permission to write, claims stay and become stale
            release_ended(self.folder)
        with suppress(OSError):  # another process may be doing the same
            for saved in self.checkpoints.glob("*.pt"):
                if self.has_outcome(saved.stem):
                    saved.unlink(missing_ok=True)
            self.checkpoints.rmdir()  # if it is empty

    def write(
        self, run: RunSpec, outcome: Outcome, env: dict[str, Any], times: dict[str, Any]
    ) -> None:
        """Write a run's folder under a temporary name, then rename it.

        An outcome that exists stays, unless it is missing data or torn. Raises StorageError if the
        run cannot be written, and leaves nothing of it then.
        """
        with self.writing():
            self.runs.mkdir(parents=True, exist_ok=True)
            before = self.status(run.run_id) or {"attempts": 0}
            attempts = int(before.get("attempts", 1)) + 1
            temporary = temporary_folder(self.runs)
            try:
                _write_run(temporary, run, outcome, env, {**times, "attempts": attempts})
                self._install(temporary, run.run_id)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def writing(self) -> AbstractContextManager[None]:
        """Turn errors of a full or read-only disk into StorageError, in one line."""
        return unwritable(self.folder)

    def _install(self, temporary: Path, run_id: str) -> None:
        """Rename into place; another process may be doing the same at this moment."""
        final = self.runs / run_id
        while True:
            if self.has_outcome(run_id):
                return
            old = temporary_folder(self.runs)
            try:
                with suppress(FileNotFoundError):
                    final.rename(old)  # onto an empty folder, which a rename replaces
                temporary.rename(final)
                keep_names(self.runs)
                return
            except OSError as error:  # another outcome was written meanwhile: check that one
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            finally:
                shutil.rmtree(old, ignore_errors=True)


def _write_run(
    folder: Path, run: RunSpec, outcome: Outcome, env: dict[str, Any], times: dict[str, Any]
) -> None:
    """Write the files of a run and their sums, durably before the folder is renamed."""
    files = {
        "spec.yaml": _yaml(run.model_dump(mode="json")),
        "env.json": _json(env),
        "curve.parquet": outcome.curve.to_parquet(index=False),
    }
    if outcome.trace:
        files["traceback.txt"] = outcome.trace.encode("utf-8", "replace")
    status = {
        "records": RECORDS_VERSION,
        "status": str(outcome.status),
        "reason": outcome.reason,
        "resumed": outcome.resumed,
        **({"no_checkpoint": outcome.no_checkpoint} if outcome.no_checkpoint else {}),
        **times,
    }
    files["status.json"] = _json(sealed(run.run_id, status, files))
    for name, content in files.items():
        write_durably(folder / name, content)
    keep_names(folder)


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode("utf-8")


def _yaml(content: dict[str, Any]) -> bytes:
    yaml, buffer = YAML(), io.BytesIO()
    yaml.default_flow_style = False
    yaml.dump(content, buffer)
    return buffer.getvalue()

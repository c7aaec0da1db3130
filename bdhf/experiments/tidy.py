"""Which runs of a results folder may go, and their removal. Runs that are under way stay."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from bdhf.experiments.claims import living
from bdhf.records import Status, collect, planned, run_status


def removable(folder: Path, *, failed: bool, foreign: bool) -> dict[str, str]:
    """Run id -> why it may go: it failed, or the plan does not have it. Raises InputError."""
    in_plan = set(planned(folder)["run_id"])
    running = {claim.run_id for claim in living(folder)}
    found: dict[str, str] = {}
    for path in sorted((folder / "runs").glob("[0-9a-f]*")):
        status = run_status(folder, path.name)
        if path.name in running or not path.is_dir():
            continue
        if failed and (status is None or Status(status["status"]).is_missing):
            why = f"{status['status']}: {status['reason']}" if status else "torn"
            found[path.name] = why
        elif foreign and path.name not in in_plan:
            found[path.name] = "not in the plan"
    return found


def remove(folder: Path, run_ids: Iterable[str]) -> None:
    """Remove runs, each at once: renamed out of sight, then deleted; then collect the tables."""
    for run_id in run_ids:
        doomed = folder / "runs" / f".tmp-removed-{run_id}"
        (folder / "runs" / run_id).rename(doomed)
        shutil.rmtree(doomed)
    collect(folder)

"""The removal of runs from a results folder. Runs under way stay.

Other processes may work in the folder meanwhile. So a run is claimed, and checked again, before it
is removed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bdhf.experiments.storage.claims import Claims, living
from bdhf.records import (
    FAILED,
    InputError,
    collect,
    in_brief,
    planned,
    remove_leftovers,
    run_status,
    temporary_folder,
    torn,
)


@dataclass(frozen=True)
class Doomed:
    """Which runs to remove."""

    failed: bool = False  # those that ended as error, oom or timeout, and torn ones
    unplanned: bool = False  # those that are not in the plan

    def why(self, folder: Path, run_id: str, in_plan: frozenset[str]) -> str:
        """Why to remove a run; "" if it stays."""
        broken = torn(folder, run_id)
        if broken and not broken.startswith("torn"):
            return ""  # foreign: a newer version can read it
        if self.failed and broken:
            return broken
        status = run_status(folder, run_id)
        if self.failed and status is not None and status["status"] in FAILED:
            return f"{status['status']}: {status['reason']}"
        return "not in the plan" if self.unplanned and run_id not in in_plan else ""


def removable(folder: Path, doomed: Doomed) -> dict[str, str]:
    """Run id -> why to remove it. Changes nothing. Raises InputError if there is no plan."""
    in_plan = frozenset(planned(folder)["run_id"])
    running = {claim.run_id for claim in living(folder)}
    names = [path.name for path in sorted((folder / "runs").glob("*")) if _is_run(path)]
    reasons = {name: doomed.why(folder, name, in_plan) for name in names if name not in running}
    return {name: why for name, why in reasons.items() if why}


def remove(folder: Path, run_ids: Iterable[str], doomed: Doomed) -> list[str]:
    """Remove these runs, except those claimed or made again meanwhile; then collect the tables.

    Returns the ids of the removed runs. Raises InputError if nothing can be written.
    """
    in_plan = frozenset(planned(folder)["run_id"])
    remove_leftovers((folder / "runs", folder / "claims"))
    claims, gone = Claims(folder), list[str]()
    try:
        for run_id in run_ids:
            claim = claims.take(run_id)
            if claim is None:
                continue
            if _is_run(folder / "runs" / run_id) and doomed.why(folder, run_id, in_plan):
                _remove(folder / "runs" / run_id)
                gone.append(run_id)
            claims.release(claim)
        if gone:
            collect(folder)
    except OSError as error:
        why = f"{in_brief(error)}; removed before: {len(gone)}"
        raise InputError([f"{folder}: cannot remove runs: {why}"]) from error
    finally:
        claims.close()
    return gone


def _is_run(path: Path) -> bool:
    """Whether it is the folder of a run, not another folder or a link."""
    named = re.fullmatch(r"[0-9a-f]{16}", path.name) is not None
    return named and path.is_dir() and not path.is_symlink()


def _remove(run: Path) -> None:
    """Rename a run to a temporary name, then delete it; `sweep` removes what is left."""
    doomed = temporary_folder(run.parent)
    run.rename(doomed)  # onto an empty folder, which a rename replaces
    shutil.rmtree(doomed, ignore_errors=True)

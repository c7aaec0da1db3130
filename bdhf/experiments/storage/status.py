"""The status of an ablation: runs done, under way, failed and left. Only reads a results folder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from bdhf.experiments.storage.claims import Claim, living
from bdhf.records import FAILED, NOT_RUN, Status, ended, planned, rises_in, run_labels


@dataclass(frozen=True)
class ArmStatus:
    """One arm: its planned cells, and the statuses of those that have ended."""

    label: str
    planned: int
    running: int
    statuses: Counter[str]

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain data."""
        plain = {"label": self.label, "planned": self.planned, "running": self.running}
        return plain | {"statuses": dict(self.statuses)}


@dataclass(frozen=True)
class AblationStatus:
    """All arms, and the state of the ablation as a whole."""

    arms: tuple[ArmStatus, ...]
    running: tuple[Claim, ...]
    labels: dict[str, str]  # run id -> "arm seed 3", or several
    done: int  # runs, as below
    diverged: int
    failed: int  # error, oom, timeout
    left: int  # to do, including those under way
    workers: int  # runs at a time: those under way, or one
    seconds_left: float | None  # estimated from runs that have ended; None: unknown
    skipped: tuple[str, ...]  # reasons, one per cell
    troubles: tuple[str, ...]  # a line for every cell that failed, diverged or is torn
    risen: dict[str, str]  # run id -> the loss of a done run that ended above its start

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain data; claims with their owners and cells."""
        return {
            "done": self.done,
            "diverged": self.diverged,
            "failed": self.failed,
            "left": self.left,
            "seconds_left": self.seconds_left,
            "workers": self.workers,
            "running": [asdict(c) | {"label": self.labels[c.run_id]} for c in self.running],
            "arms": [arm.to_json() for arm in self.arms],
            "skipped": dict(Counter(self.skipped)),
            "troubles": list(self.troubles),
            "risen": self.risen,
            "labels": self.labels,
        }


def ablation_status(folder: str | Path) -> AblationStatus:
    """Read a results folder. Raises InputError if it has no plan."""
    cells = planned(folder)
    runs = cells.drop_duplicates("run_id").set_index("run_id")
    running = tuple(claim for claim in living(folder) if claim.run_id in runs.index)
    counts = Counter(runs["status"].dropna())
    left = [str(run_id) for run_id in runs.index[runs["status"].isna()]]
    workers = max(len(running), 1)
    return AblationStatus(
        arms=tuple(_arm(str(arm), rows, running) for arm, rows in cells.groupby("arm", sort=False)),
        running=running,
        labels=run_labels(cells[["arm", "seed", "run_id"]].itertuples(index=False, name=None)),
        done=counts[Status.DONE],
        diverged=counts[Status.DIVERGED],
        failed=sum(counts[status] for status in FAILED),
        left=len(left),
        workers=workers,
        seconds_left=_seconds_left(folder, runs["arm"], left, workers),
        skipped=tuple(cells.loc[cells["status"] == Status.SKIPPED, "reason"]),
        troubles=tuple(_troubles(cells)),
        risen={run_id: str(rise) for run_id, rise in rises_in(folder, list(runs.index)).items()},
    )


def seconds_of(folder: str | Path, run_ids: Sequence[str]) -> dict[str, float]:
    """The wall-clock of runs with an outcome, by run id."""
    seconds: dict[str, float] = {}
    for run_id, status in ended(folder, run_ids).items():
        wall = status.get("wall_seconds")
        if status["status"] not in (Status.DONE, Status.DIVERGED):
            continue
        if isinstance(wall, (int, float)) and math.isfinite(wall):
            seconds[run_id] = float(wall)
    return seconds


def time_of(seconds: Sequence[float], workers: int) -> float:
    """The wall-clock of runs of these lengths, so many at a time: at least the longest.

    >>> time_of([10.0, 10.0, 40.0], 2), time_of([10.0, 40.0], 8)
    (40.0, 40.0)
    """
    return max(sum(seconds) / workers, max(seconds, default=0.0))


def _arm(label: str, rows: pd.DataFrame, running: Sequence[Claim]) -> ArmStatus:
    under_way = {claim.run_id for claim in running}
    here = sum(run_id in under_way for run_id in rows["run_id"])
    return ArmStatus(label, len(rows), here, Counter(map(str, rows["status"].dropna())))


def _seconds_left(
    folder: str | Path, arms: pd.Series[str], left: Sequence[str], workers: int
) -> float | None:
    """The time left, from the mean wall-clock of the finished runs of each arm, or of all arms.

    `arms` is the arm of every run, by run id.
    """
    walls = pd.Series(seconds_of(folder, list(arms.index.difference(list(left)))), dtype=float)
    if not left or walls.empty:
        return None
    means = walls.groupby(arms.loc[walls.index]).mean()
    return time_of([float(means.get(arms[run_id], fmean(walls))) for run_id in left], workers)


def _troubles(cells: pd.DataFrame) -> list[str]:
    good = (Status.DONE, Status.SKIPPED)
    return [
        f"{row.arm} seed {row.seed} ({row.run_id}): "
        + (f"{row.status}: {row.reason}" if isinstance(row.status, str) else str(row.reason))
        for row in cells.itertuples()
        if row.status not in good and row.reason != NOT_RUN
    ]

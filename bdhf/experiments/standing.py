"""How an ablation stands: what is done, under way, failed and left. Reads a results folder only."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import pandas as pd

from bdhf.experiments.claims import Claim, living
from bdhf.records import Status, ended, planned


@dataclass(frozen=True)
class ArmStanding:
    """One arm: its planned cells, and how those that have ended did."""

    label: str
    planned: int
    running: int
    statuses: Counter[str]


@dataclass(frozen=True)
class Standing:
    """All arms, and what a person asks of an ablation that is under way."""

    arms: tuple[ArmStanding, ...]
    running: tuple[Claim, ...]
    labels: dict[str, str]  # run id -> "arm seed 3", or several
    done: int  # runs, as below
    failed: int  # error, oom, timeout, diverged
    left: int  # to do, those under way included
    seconds_left: float | None  # at the speed of those that have ended; None: not known
    skipped: tuple[str, ...]  # reasons, one a cell
    troubles: tuple[str, ...]  # a line for every cell that did not end well

    def to_json(self) -> str:
        """Everything, as JSON."""
        return json.dumps(asdict(self), indent=1)


def standing(folder: str | Path) -> Standing:
    """Look at a results folder. Raises InputError where it has no plan."""
    cells = planned(folder)
    running = tuple(claim for claim in living(folder) if claim.run_id in set(cells["run_id"]))
    runs = cells.drop_duplicates("run_id").set_index("run_id")["status"]
    labels = (cells["arm"] + " seed " + cells["seed"].astype(str)).groupby(cells["run_id"])
    ended = runs.dropna()
    left = [str(run_id) for run_id, status in runs.items() if not isinstance(status, str)]
    return Standing(
        arms=tuple(_arm(str(arm), rows, running) for arm, rows in cells.groupby("arm", sort=False)),
        running=running,
        labels={str(run_id): " = ".join(names) for run_id, names in labels},
        done=int((ended == Status.DONE).sum()),
        failed=int((~ended.isin([Status.DONE, Status.SKIPPED])).sum()),
        left=len(left),
        seconds_left=_seconds_left(folder, cells, left, max(len(running), 1)),
        skipped=tuple(cells.loc[cells["status"] == Status.SKIPPED, "reason"]),
        troubles=tuple(_troubles(cells)),
    )


def seconds_of(folder: str | Path, run_ids: Sequence[str]) -> dict[str, float]:
    """The wall-clock of runs that have left an outcome, by run id."""
    found: dict[str, float] = {}
    for run_id, status in ended(folder, run_ids).items():
        wall = status.get("wall_seconds")
        if isinstance(wall, (int, float)) and status["status"] in (Status.DONE, Status.DIVERGED):
            found[run_id] = float(wall)
    return found


def _arm(label: str, rows: pd.DataFrame, running: Sequence[Claim]) -> ArmStanding:
    under_way = {claim.run_id for claim in running}
    here = sum(run_id in under_way for run_id in rows["run_id"])
    return ArmStanding(label, len(rows), here, Counter(map(str, rows["status"].dropna())))


def _seconds_left(
    folder: str | Path, cells: pd.DataFrame, left: Sequence[str], workers: int
) -> float | None:
    """What is left, at the mean wall-clock of each arm's finished runs, or of all."""
    if not left:
        return None
    arms = cells.drop_duplicates("run_id").set_index("run_id")["arm"]
    known = pd.Series(seconds_of(folder, list(arms.index)), dtype=float)
    if known.empty:
        return None
    means = known.groupby(arms.loc[known.index]).mean()
    return sum(float(means.get(arms[run_id], fmean(known))) for run_id in left) / workers


def _troubles(cells: pd.DataFrame) -> list[str]:
    good = (Status.DONE, Status.SKIPPED)
    return [
        f"{row.arm} seed {row.seed} ({row.run_id}): {row.status}: {row.reason}"
        for row in cells.itertuples()
        if isinstance(row.status, str) and row.status not in good
    ]

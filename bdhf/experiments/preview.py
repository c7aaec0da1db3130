"""What an ablation would do, as plain data: for `bdhf plan`, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from bdhf.experiments.duration import Duration
from bdhf.experiments.plan.expand import Cell, Excluded, Plan
from bdhf.experiments.storage.status import time_of
from bdhf.records import Comparison, PlannedArm, Status, Target, tests_of


@dataclass(frozen=True)
class ArmPreview:
    """One arm of the tables, with its cells."""

    label: str
    name: str  # in the spec
    values: Mapping[str, str]  # axis of the grid -> value, in words
    seeds: tuple[int, ...]
    left: int  # runs still to do
    skip: str  # why its cells are not run; "": they are
    seconds: float | None  # wall-clock of one run; None: unknown
    source: str  # of the seconds, or why they are unknown


@dataclass(frozen=True)
class Preview:
    """An ablation before it is run."""

    name: str
    folder: str
    arms: tuple[ArmPreview, ...]
    cells: tuple[Cell, ...]
    ended: frozenset[str]  # ids of runs that are not to do
    excluded: tuple[Excluded, ...]
    comparisons: tuple[Comparison, ...]
    targets: tuple[Target, ...]
    statuses: Mapping[str, Status]  # of the ended runs, by id, including those to do again
    twins: tuple[Comparison, ...] = ()  # not compared: both arms are the same runs

    @property
    def runs(self) -> int:
        """The number of different runs, skipped ones included."""
        return len({cell.run_id for cell in self.cells})

    @property
    def left(self) -> int:
        """Runs that are still to do."""
        return len({c.run_id for c in self.cells if not c.skip} - self.ended)

    @property
    def kept(self) -> Counter[str]:
        """Status -> the number of ended runs that are kept."""
        kept = Counter(str(self.statuses.get(run_id, Status.DONE)) for run_id in self.ended)
        return Counter({str(status): kept[status] for status in Status if kept[status]})

    @property
    def again(self) -> Counter[str]:
        """Status -> the number of ended runs that are to do again."""
        left = {c.run_id for c in self.cells if not c.skip} - self.ended
        return Counter(str(self.statuses[run_id]) for run_id in left & set(self.statuses))

    @property
    def skipped(self) -> Counter[str]:
        """Reason -> the number of runs that are skipped for it."""
        reasons = {c.run_id: c.skip for c in self.cells if c.skip and c.run_id not in self.ended}
        return Counter(reasons.values())

    def seconds_left(self, workers: int) -> float | None:
        """Wall-clock until this many workers are done; None if the duration of an arm is unknown.

        A run that serves several arms is counted once.
        """
        of_arm = {arm.label: arm.seconds for arm in self.arms}
        left = {c.run_id: of_arm[c.arm] for c in self.cells if not c.skip}
        lengths = [seconds for run_id, seconds in left.items() if run_id not in self.ended]
        timed = [seconds for seconds in lengths if seconds is not None]
        return time_of(timed, workers) if len(timed) == len(lengths) else None

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain data; a comparison of costs once for each target."""
        return {
            "name": self.name,
            "folder": self.folder,
            "runs": self.runs,
            "left": self.left,
            "skipped": dict(self.skipped),
            "statuses": dict(self.kept),
            "again": dict(self.again),
            "arms": [asdict(arm) for arm in self.arms],
            "cells": [
                {
                    "arm": cell.arm,
                    "seed": cell.seed,
                    "run_id": cell.run_id,
                    "ended": cell.run_id in self.ended,
                    "skip": cell.skip,
                }
                for cell in self.cells
            ],
            "excluded": [asdict(entry) for entry in self.excluded],
            "comparisons": [
                entry.model_dump() | {"target": target.label if target else None}
                for entry, target in tests_of(self.comparisons, self.targets)
            ],
            "not_compared": [
                {"name": entry.name, "candidate": entry.candidate, "baseline": entry.baseline}
                for entry in self.twins
            ],
        }


def preview(
    name: str,
    folder: str,
    plan: Plan,
    cells: Sequence[Cell],
    todo: Collection[str],
    durations: Mapping[str, Duration | str],
    targets: tuple[Target, ...],
    statuses: Mapping[str, Status] = MappingProxyType({}),
) -> Preview:
    """The preview of these cells of a plan."""
    of_arm: dict[str, list[Cell]] = {}
    for cell in cells:
        of_arm.setdefault(cell.arm, []).append(cell)
    waiting = frozenset(todo)
    arms = tuple(
        _arm(arm, of_arm[arm.label], waiting, durations.get(arm.label, "no run has finished"))
        for arm in plan.arms
        if arm.label in of_arm
    )
    ended = frozenset(cell.run_id for cell in cells if not cell.skip) - waiting
    return Preview(
        name=name,
        folder=folder,
        arms=arms,
        cells=tuple(cells),
        ended=ended,
        excluded=plan.excluded,
        comparisons=plan.comparisons,
        targets=targets,
        statuses=statuses,
        twins=plan.twins,
    )


def _arm(
    arm: PlannedArm, cells: Sequence[Cell], waiting: frozenset[str], duration: Duration | str
) -> ArmPreview:
    return ArmPreview(
        label=arm.label,
        name=arm.name,
        values=dict(arm.values),
        seeds=tuple(cell.seed for cell in cells),
        left=sum(cell.run_id in waiting for cell in cells),
        skip=cells[0].skip,
        seconds=duration.seconds if isinstance(duration, Duration) else None,
        source=duration.source if isinstance(duration, Duration) else duration,
    )

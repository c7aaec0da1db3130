"""How long runs take: from those that have finished, or from a few updates of each arm.

run = set-up + updates × (seconds an update) + evaluations × (seconds an evaluation)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from bdhf.experiments.plan.expand import Cell
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.run.execute import execute
from bdhf.experiments.spec.schema import Safety
from bdhf.records import AXES, Budget, Status

#: Updates of a probe: the first sets up what the others use.
_PROBE_UPDATES = 3


@dataclass(frozen=True)
class Duration:
    """The wall-clock of one run of an arm, in seconds, and what the number comes from."""

    seconds: float
    source: str  # "finished runs" or "probe"


@dataclass(frozen=True)
class Mark:
    """When a row of a curve was measured, in seconds since the run began, and the row."""

    clock: float
    row: Mapping[str, float]


def of_finished(cells: Iterable[Cell], seconds: Mapping[str, float]) -> dict[str, Duration]:
    """Arm -> the mean over its runs that have ended; `seconds` is their wall-clock by run id."""
    by_arm: dict[str, list[float]] = {}
    for cell in cells:
        if cell.run_id in seconds:
            by_arm.setdefault(cell.arm, []).append(seconds[cell.run_id])
    return {arm: Duration(fmean(values), "finished runs") for arm, values in by_arm.items()}


def time_updates(run: RunSpec, *, device: str, safety: Safety) -> Duration | str:
    """Make a few updates that are not recorded, and say how long the run takes; or why they fail.

    A run that stops at its targets may take less.
    """
    short = {"budget": Budget(updates=_PROBE_UPDATES), "evaluate_every": 1, "stop_at": ()}
    marks: list[Mark] = []
    begun = time.perf_counter()
    outcome = execute(
        run.model_copy(update=short),
        device=device,
        safety=safety,
        observe=lambda row: marks.append(Mark(time.perf_counter() - begun, row)),
    )
    if outcome.status is not Status.DONE:
        return f"{outcome.status}: {outcome.reason}"
    seconds = whole_run(run, marks)
    if not math.isfinite(seconds):
        return f"its updates spend no {run.budget.axis}, which its budget is of"
    return Duration(seconds, "probe")


def whole_run(run: RunSpec, marks: Sequence[Mark]) -> float:
    """The seconds of a run whose first updates left these marks, one an update, from 0 on.

    The second update and those after it are taken for all that follow; what the first one takes
    beside, and all before it, is set-up.
    """
    steady = marks[1:]
    update = _gain(steady, "seconds")
    clock = (steady[-1].clock - steady[0].clock) / (len(steady) - 1)
    evaluation = max(clock - update, 0.0)
    column, _ = AXES[run.budget.axis]
    gain = _gain(steady, column)
    updates = math.ceil(run.budget.limit / gain - 1e-9) if gain > 0 else math.inf
    setup = max(steady[0].clock - update - 2 * evaluation, 0.0)
    return setup + updates * update + (updates / run.evaluate_every + 1) * evaluation


def _gain(marks: Sequence[Mark], column: str) -> float:
    """What an update adds to a column."""
    return (marks[-1].row[column] - marks[0].row[column]) / (len(marks) - 1)

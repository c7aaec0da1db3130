"""The duration of runs, measured on finished runs or on a few updates of each arm.

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

#: Updates of a probe; the first one includes set-up.
_PROBE_UPDATES = 3


@dataclass(frozen=True)
class Duration:
    """The wall-clock of one run of an arm, in seconds, and the source of the number."""

    seconds: float
    source: str  # "finished runs" or "probe"


@dataclass(frozen=True)
class Mark:
    """A row of a curve, and when it was measured, in seconds since the run began."""

    clock: float
    row: Mapping[str, float]


def of_finished(cells: Iterable[Cell], seconds: Mapping[str, float]) -> dict[str, Duration]:
    """Arm -> the mean over its ended runs; `seconds` has their wall-clock by run id."""
    by_arm: dict[str, list[float]] = {}
    for cell in cells:
        if cell.run_id in seconds:
            by_arm.setdefault(cell.arm, []).append(seconds[cell.run_id])
    return {arm: Duration(fmean(values), "finished runs") for arm, values in by_arm.items()}


def time_updates(run: RunSpec, *, device: str, safety: Safety) -> Duration | str:
    """Make a few updates without recording them; return the duration of the run, or the failure.

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
        return f"its updates use no {run.budget.axis}, the axis of its budget"
    return Duration(seconds, "probe")


def whole_run(run: RunSpec, marks: Sequence[Mark]) -> float:
    """The seconds of a whole run, from the marks of its first updates, from update 0 on.

    All later updates are assumed to take as long as the second and third. The additional time of
    the first update, and all time before it, is set-up.
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
    """The mean increase of a column per update."""
    return (marks[-1].row[column] - marks[0].row[column]) / (len(marks) - 1)

"""One trial: the settings that a sampler proposes, on every tuning seed, and their results.

The folder of the study holds finished runs like that of an ablation: a repeated trial, or one with
the settings of another, does not make a run twice.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
import pandas as pd

from bdhf.experiments.engines.ending import saved_first
from bdhf.experiments.engines.execution import Execution
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.plan.user_code import own_code
from bdhf.experiments.run.execute import Outcome
from bdhf.experiments.run.training import Row
from bdhf.experiments.storage.stale import is_stale, set_aside
from bdhf.experiments.storage.store import Store
from bdhf.records import Owner, Status
from bdhf.records.run import Run, read_run
from bdhf.tuning.study.objective import Goal, SeedRun, final, spent, trial_cost, value
from bdhf.tuning.study.space import ArmSettings, suggested
from bdhf.tuning.study.study import StudyCell

#: Columns of a curve that a trial stores, with the metrics of its goals.
CURVE = ("update", "products", "gradient_equivalents", "seconds")

#: Largest number of evaluations of a run that a trial stores and reports to the pruner.
MOST_ROWS = 100

#: Total costs of the runs of a trial, by the names of axes.
SPENT = ("updates", "products", "gradient_equivalents", "seconds")


class _GivenUp(BaseException):
    """The pruner stops a run; not an `Exception`, since those are outcomes of runs."""


@dataclass
class Trying:
    """The state of a trial under way."""

    trial: optuna.Trial
    cell: StudyCell
    store: Store
    device: str
    runs: list[SeedRun] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    rows: list[Row] = field(default_factory=list)  # of the run under way

    @property
    def goals(self) -> Sequence[Goal]:
        """The goals of the cell."""
        return self.cell.goals

    def say(self, line: str) -> None:
        """Print a line about the run under way."""
        sys.stderr.write(f"{self.cell.label}, a run of its trial {self.trial.number}: {line}\n")
        sys.stderr.flush()


def run_trial(
    trial: optuna.Trial, cell: StudyCell, seeds: Sequence[int], store: Store, device: str
) -> list[float]:
    """Run a trial; its values. Raises TrialPruned when it is pruned, and StorageError."""
    trial.set_user_attr("owner", str(Owner.here()))  # first, since a proposal may take a while
    settings = suggested(cell.space, trial)
    trial.set_user_attr("settings", settings)
    trying = Trying(trial, cell, store, device)
    try:
        for index, seed in enumerate(seeds):
            trying.runs.append(_run(trying, settings, seed, reports=index == 0))
            if trying.runs[-1].status is not Status.DONE:
                break
    except _GivenUp:
        _leave(trying, "pruned", f"behind other trials at update {_updates(trying.rows)}")
        raise optuna.TrialPruned from None
    last = trying.runs[-1]
    _leave(trying, str(last.status), last.reason)
    return [value(goal, trying.runs) for goal in cell.goals]


def _run(trying: Trying, settings: ArmSettings, seed: int, *, reports: bool) -> SeedRun:
    """A run of a trial: the stored one, or a new one, which is stored."""
    spec = trying.cell.trial(settings, seed)
    trying.rows = []
    for key, hashes in own_code(spec).items():
        trying.trial.set_user_attr(key, hashes)
    with trying.store.writing():
        if is_stale(trying.store.folder, spec):  # made with other code of an own part
            set_aside(trying.store, [spec])
    run = _kept(trying.store, spec)
    if run is None:
        outcome = _made(trying, spec, _report(trying, reports))
        run = SeedRun(seed, spec.run_id, outcome.status, outcome.reason, outcome.curve)
    elif reports:
        _replay(run, _report(trying, reports))
    if reports and run.status is Status.DONE:
        _stay(trying, run)
    return run


def _kept(store: Store, spec: RunSpec) -> SeedRun | None:
    """The stored run, if it has an outcome."""
    stored = read_run(store.runs / spec.run_id)
    if not isinstance(stored, Run) or Status(stored.status["status"]).is_missing:
        return None
    curve: pd.DataFrame = stored.curve.to_pandas()
    status = stored.status
    return SeedRun(spec.seed, spec.run_id, Status(status["status"]), status["reason"], curve)


def _made(trying: Trying, spec: RunSpec, observe: Callable[[Row], None]) -> Outcome:
    """Make a run and write it. Raises KeyboardInterrupt where it was only saved."""
    execution = Execution(spec, trying.store, trying.device, trying.cell.safety)
    with saved_first(f"a run of {trying.cell.label} that is") as ending:
        try:
            outcome = execution.make(
                ending,
                observe=observe,
                again=observe,  # the pruner of a repeated trial sees the same values
                note=trying.say,
            )
        except _GivenUp:
            execution.discard()
            raise
        with trying.store.writing():
            execution.write(outcome)
    return outcome


def _report(trying: Trying, reports: bool) -> Callable[[Row], None]:
    """The observer of a run; that of a trial's first run reports to the pruner."""
    goal, stride = trying.goals[0], _stride(trying.cell.run)
    prunes = reports and len(trying.goals) == 1

    def observe(row: Row) -> None:
        trying.rows.append(row)
        metric, update = row.get(goal.metric, math.nan), int(row["update"])
        if prunes and math.isfinite(metric) and update % stride == 0:
            trying.trial.report(_falling(goal, metric), step=update)
            if trying.trial.should_prune():
                raise _GivenUp

    return observe


def _replay(run: SeedRun, observe: Callable[[Row], None]) -> None:
    """Report a stored run as if it were made now."""
    for row in run.curve.to_dict("records"):
        observe({str(name): number for name, number in row.items()})


def _stay(trying: Trying, run: SeedRun) -> None:
    """Report the target's value of a run that reached it, up to the budget.

    Otherwise slower runs would be compared with each other only, and none would be pruned.
    """
    goal, stride, rows = trying.goals[0], _stride(trying.cell.run), run.curve
    budget = trying.cell.run.budget.updates
    if len(trying.goals) > 1 or goal.target is None or budget is None or rows.empty:
        return
    last, metric = int(rows["update"].iloc[-1]), float(rows[goal.metric].iloc[-1])
    if goal.target.met(metric):
        for update in range((last // stride + 1) * stride, budget + 1, stride):
            trying.trial.report(_falling(goal, metric), step=update)


def _falling(goal: Goal, metric: float) -> float:
    """The metric for the pruner: less is better."""
    return -metric if goal.is_upward else metric


def _stride(run: RunSpec) -> int:
    """Updates between two reports: a multiple of the interval of evaluation."""
    updates = run.budget.updates or 0
    return run.evaluate_every * max(1, math.ceil(updates / run.evaluate_every / MOST_ROWS))


def _updates(rows: Sequence[Row]) -> int:
    return int(rows[-1]["update"]) if rows else 0


def _leave(trying: Trying, status: str, reason: str) -> None:
    """Write the outcome of the trial into its attributes, the source of a study's records."""
    trial, runs = trying.trial, list(trying.runs)
    if status == "pruned":
        seed = trying.cell.run.seed
        curve = pd.DataFrame(trying.rows)
        runs.append(SeedRun(seed, "", Status.SKIPPED, reason, curve))
    attributes: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "hits": sum(trial_cost(trying.goals[0], run)[1] for run in trying.runs),
        **{axis: sum(spent(run, axis) for run in runs) for axis in SPENT},
        "wall_seconds": round(time.monotonic() - trying.begun, 3),
        "host": Owner.here().host,
        "seeds": [_of_seed(trying.goals, run, status) for run in runs],
    }
    for name, content in attributes.items():
        trial.set_user_attr(name, _plain(content))
    for run in runs:
        trial.set_user_attr(f"curve {run.seed}", _curve(trying.goals, run.curve))


def _of_seed(goals: Sequence[Goal], run: SeedRun, status: str) -> dict[str, Any]:
    pruned = status == "pruned"
    costs = {goal.estimand: None if pruned else trial_cost(goal, run)[0] for goal in goals}
    return {
        "seed": run.seed,
        "run_id": run.run_id,
        "status": status if pruned else str(run.status),
        "reason": run.reason,
        "hit": not pruned and trial_cost(goals[0], run)[1],
        "final": final(goals[0], run),
        **costs,
    }


def _curve(goals: Sequence[Goal], curve: pd.DataFrame) -> dict[str, list[float | None]]:
    """The columns of a curve as lists: all rows, or a selection with the last row."""
    names = [name for name in dict.fromkeys((*CURVE, *(g.metric for g in goals))) if name in curve]
    places = np.unique(np.linspace(0, max(len(curve) - 1, 0), MOST_ROWS).astype(int))
    rows = curve.iloc[places] if len(curve) else curve
    return {name: _plain([float(number) for number in rows[name]]) for name in names}


def _plain(content: Any) -> Any:
    """Plain data for JSON: null for a number that is not finite."""
    text = json.dumps(content)
    return json.loads(text, parse_constant=lambda _: None)

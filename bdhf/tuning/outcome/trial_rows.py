"""The finished trials of a cell as rows in the tables of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from bdhf.tuning.sampling.trial_slots import DEFAULT
from bdhf.tuning.study.space import ArmSettings
from bdhf.tuning.study.study import StudyCell
from bdhf.tuning.workers.trial import SPENT


@dataclass(frozen=True)
class CellTrials:
    """The finished trials of a cell, in the order of their positions."""

    cell: StudyCell
    optuna: optuna.Study
    trials: tuple[FrozenTrial, ...]

    @property
    def best(self) -> int | None:
        """The completed trial with the smallest objectives, in their order; the first of equals."""
        done = [i for i, trial in enumerate(self.trials) if trial.state is TrialState.COMPLETE]
        return min(done, key=lambda i: (self.trials[i].values, i), default=None)

    @property
    def front(self) -> frozenset[int]:
        """The positions of the Pareto front: no other trial is as good in all and better in one."""
        values = {i: t.values for i, t in enumerate(self.trials) if t.state is TrialState.COMPLETE}
        return frozenset(
            i for i, own in values.items()
            if not any(_dominates(other, own) for other in values.values())
        )  # fmt: skip

    def settings(self, position: int) -> ArmSettings:
        """The settings of a trial."""
        return dict(self.trials[position].user_attrs.get("settings", {}))


def trial_rows(cell_trials: CellTrials) -> list[dict[str, Any]]:
    """The rows of trials.parquet."""
    names = [goal.estimand for goal in cell_trials.cell.goals]
    rows = []
    for position, trial in enumerate(cell_trials.trials):
        attributes, pruned = trial.user_attrs, trial.state is TrialState.PRUNED
        values = [math.nan] * len(names) if pruned else trial.values
        rows.append(
            {
                "arm": cell_trials.cell.label,
                "trial": position,
                "number": trial.number,
                "status": attributes.get("status", "pruned" if pruned else "done"),
                "reason": attributes.get("reason", ""),
                "is_default": bool(attributes.get(DEFAULT, False)),
                "on_front": position in cell_trials.front,
                "hits": int(attributes.get("hits", 0)),
                "seeds": len(attributes.get("seeds", [])),
                **{axis: _number(attributes.get(axis)) for axis in SPENT},
                "wall_seconds": _number(attributes.get("wall_seconds")),
                "started": _time(trial.datetime_start),
                "finished": _time(trial.datetime_complete),
                "host": attributes.get("host", ""),
                **dict(zip(names, values, strict=True)),
            }
        )
    return rows


def parameter_rows(cell_trials: CellTrials) -> list[dict[str, Any]]:
    """The rows of parameters.parquet."""
    return [
        {
            "arm": cell_trials.cell.label,
            "trial": position,
            "parameter": name,
            "value": math.nan if isinstance(value, str) else float(value),
            "text": value if isinstance(value, str) else "",
        }
        for position, trial in enumerate(cell_trials.trials)
        for name, value in trial.params.items()
    ]


def seed_rows(cell_trials: CellTrials) -> list[dict[str, Any]]:
    """The rows of seeds.parquet."""
    names = [goal.estimand for goal in cell_trials.cell.goals]
    return [
        {
            "arm": cell_trials.cell.label,
            "trial": position,
            **seed,
            **{name: _number(seed.get(name)) for name in ("final", *names)},
        }
        for position, trial in enumerate(cell_trials.trials)
        for seed in trial.user_attrs.get("seeds", [])
    ]


def curve_rows(cell_trials: CellTrials) -> list[dict[str, Any]]:
    """The rows of trial_curves.parquet."""
    rows = []
    for position, trial in enumerate(cell_trials.trials):
        for key, curve in trial.user_attrs.items():
            if key.startswith("curve ") and curve:
                seed = int(key.removeprefix("curve "))
                rows += [
                    {"arm": cell_trials.cell.label, "trial": position, "seed": seed, **row}
                    for row in _rows(curve)
                ]
    return rows


def _rows(curve: Mapping[str, Sequence[float | None]]) -> list[dict[str, float]]:
    columns = {name: [_number(value) for value in values] for name, values in curve.items()}
    length = len(next(iter(columns.values())))
    return [{name: values[i] for name, values in columns.items()} for i in range(length)]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _time(moment: Any) -> str:
    return "" if moment is None else str(moment.isoformat(timespec="seconds"))


def _dominates(values: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(values, other, strict=True)) and list(values) != list(other)

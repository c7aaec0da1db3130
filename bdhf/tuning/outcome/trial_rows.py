"""The finished trials of a cell as rows of the tables of a study."""

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
    """The finished trials of a cell, in the order of their places."""

    cell: StudyCell
    optuna: optuna.Study
    trials: tuple[FrozenTrial, ...]

    @property
    def best(self) -> int | None:
        """The completed trial with the least first objective, then the others; the first such."""
        done = [i for i, trial in enumerate(self.trials) if trial.state is TrialState.COMPLETE]
        return min(done, key=lambda i: (self.trials[i].values, i), default=None)

    @property
    def front(self) -> frozenset[int]:
        """The places of trials that no other one is as good as in all and better in one."""
        values = {i: t.values for i, t in enumerate(self.trials) if t.state is TrialState.COMPLETE}
        return frozenset(
            i for i, mine in values.items()
            if not any(_dominates(other, mine) for other in values.values())
        )  # fmt: skip

    def settings(self, place: int) -> ArmSettings:
        """The settings of a trial."""
        return dict(self.trials[place].user_attrs.get("settings", {}))


def trial_rows(found: CellTrials) -> list[dict[str, Any]]:
    """The rows of trials.parquet."""
    names = [goal.estimand for goal in found.cell.goals]
    rows = []
    for place, trial in enumerate(found.trials):
        known, pruned = trial.user_attrs, trial.state is TrialState.PRUNED
        values = [math.nan] * len(names) if pruned else trial.values
        rows.append(
            {
                "arm": found.cell.label,
                "trial": place,
                "number": trial.number,
                "status": known.get("status", "pruned" if pruned else "done"),
                "reason": known.get("reason", ""),
                "is_default": bool(known.get(DEFAULT, False)),
                "on_front": place in found.front,
                "hits": int(known.get("hits", 0)),
                "seeds": len(known.get("seeds", [])),
                **{axis: _number(known.get(axis)) for axis in SPENT},
                "wall_seconds": _number(known.get("wall_seconds")),
                "started": _time(trial.datetime_start),
                "finished": _time(trial.datetime_complete),
                "host": known.get("host", ""),
                **dict(zip(names, values, strict=True)),
            }
        )
    return rows


def parameter_rows(found: CellTrials) -> list[dict[str, Any]]:
    """The rows of parameters.parquet."""
    return [
        {
            "arm": found.cell.label,
            "trial": place,
            "parameter": name,
            "value": math.nan if isinstance(value, str) else float(value),
            "text": value if isinstance(value, str) else "",
        }
        for place, trial in enumerate(found.trials)
        for name, value in trial.params.items()
    ]


def seed_rows(found: CellTrials) -> list[dict[str, Any]]:
    """The rows of seeds.parquet."""
    names = [goal.estimand for goal in found.cell.goals]
    return [
        {
            "arm": found.cell.label,
            "trial": place,
            **seed,
            **{name: _number(seed.get(name)) for name in ("final", *names)},
        }
        for place, trial in enumerate(found.trials)
        for seed in trial.user_attrs.get("seeds", [])
    ]


def curve_rows(found: CellTrials) -> list[dict[str, Any]]:
    """The rows of trial_curves.parquet."""
    rows = []
    for place, trial in enumerate(found.trials):
        for key, curve in trial.user_attrs.items():
            if key.startswith("curve ") and curve:
                seed = int(key.removeprefix("curve "))
                rows += [
                    {"arm": found.cell.label, "trial": place, "seed": seed, **row}
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


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and list(one) != list(other)

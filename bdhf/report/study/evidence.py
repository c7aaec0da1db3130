"""The evidence for the figures and tables of a study: cells, each an arm at one combination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from bdhf.records import LOSSES, Parameter, StudyRecords, TunedArm, unit_of
from bdhf.report.page.style import Look, looks
from bdhf.stats.result import Verdict
from bdhf.stats.studies.trials import (
    DONE,
    PRUNED,
    best_so_far,
    miss_value_of,
    trial_values,
    trials_of,
)
from bdhf.stats.studies.tuning_budget import Ahead, ExpectedBest, against_the_budget, expected_best

#: How a trial ended, as text; all but the first have their own marks.
HIT, MISSED, FAILED = "done", "missed the target", "failed"


@dataclass(frozen=True, eq=False)
class CellEvidence:
    """One arm at one combination of the grid, for the first objective.

    `trials`: its rows by trial, and `kind`. `places`: a row per trial and a column per parameter:
    its value, or the index of its choice; NaN for a parameter that the trial does not have.
    """

    arm: TunedArm
    trials: pd.DataFrame
    places: pd.DataFrame
    so_far: pd.DataFrame  # that of `stats.trials.best_so_far`
    horizon: float  # NaN for a loss without a completed trial
    expected: ExpectedBest | None  # None: no trial, or no horizon

    @property
    def where(self) -> str:
        """Its combination of the grid, as text; "" without a grid."""
        return self.arm.label.removeprefix(self.arm.name).strip()

    @property
    def best(self) -> pd.Series | None:
        """The row of its best trial."""
        rows = self.trials[self.trials["trial"] == self.arm.best]
        return None if rows.empty else rows.iloc[0]

    @property
    def hit(self) -> bool:
        """Whether a trial reached the target; for a tuned loss, whether a trial was completed."""
        return bool((self.trials["kind"] == HIT).any())


@dataclass(frozen=True, eq=False)
class StudyEvidence:
    """The tidy tables that the figures of a study draw.

    `verdicts`: those of the comparisons in `ahead` on held-out seeds, by name; a missing name is an
    unknown verdict.
    """

    records: StudyRecords
    cells: tuple[CellEvidence, ...]
    ahead: tuple[Ahead, ...] = ()
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)

    @property
    def objective(self) -> str:
        """The estimand that decides which trial is best."""
        return self.records.study.objectives[0]

    @property
    def looks(self) -> Mapping[str, Look]:
        """Colour, line style and marker of every arm of the spec, the same at every batch size."""
        return looks(list(dict.fromkeys(cell.arm.name for cell in self.cells)))

    @property
    def by_name(self) -> Mapping[str, tuple[CellEvidence, ...]]:
        """The cells with a trial, by arm of the spec."""
        cells_by_name: dict[str, tuple[CellEvidence, ...]] = {}
        for cell in self.cells:
            if len(cell.trials):
                cells_by_name[cell.arm.name] = (*cells_by_name.get(cell.arm.name, ()), cell)
        return cells_by_name

    @property
    def by_place(self) -> Mapping[str, tuple[CellEvidence, ...]]:
        """The cells of every combination of the grid, including matching cells of fewer axes."""
        values = [dict(cell.arm.values) for cell in self.cells]
        whole = [v for v in values if not any(v.items() < other.items() for other in values)]
        cells_by_place: dict[str, tuple[CellEvidence, ...]] = {}
        for chosen in whole:
            cells = tuple(c for c in self.cells if c.arm.values.items() <= chosen.items())
            cells_by_place.setdefault(max((c.where for c in cells), key=len), cells)
        return cells_by_place


def gather_study(
    records: StudyRecords, verdicts: Mapping[str, Verdict] | None = None
) -> StudyEvidence:
    """Compute the evidence for the figures of a study."""
    cells = tuple(_cell(records, arm) for arm in records.study.arms)
    return StudyEvidence(records, cells, against_the_budget(records), verdicts or {})


def question(records: StudyRecords, objective: str) -> str:
    """What was measured, as text: "updates to val_loss ≤ 0.02"."""
    target = records.study.target
    words = unit_of(objective)
    return words if objective in LOSSES or target is None else f"{words} to {target.label}"


def axis_label(objective: str) -> str:
    """A short form of `question` for the label of an axis."""
    words = unit_of(objective)
    return words if objective in LOSSES else f"{words} to the target"


def _cell(records: StudyRecords, arm: TunedArm) -> CellEvidence:
    objective = records.study.objectives[0]
    trials = trials_of(records, arm.label)
    horizon = miss_value_of(records, arm, objective)
    has_value = len(trials) > 0 and np.isfinite(horizon)
    values = trial_values(records, arm, objective) if has_value else ()
    return CellEvidence(
        arm=arm,
        trials=trials.assign(kind=_kinds(trials, objective, horizon)),
        places=_places(records, arm, trials["trial"]),
        so_far=best_so_far(records, arm, objective),
        horizon=horizon,
        expected=expected_best(values, records.study.alpha) if has_value else None,
    )


def _kinds(trials: pd.DataFrame, objective: str, horizon: float) -> list[str]:
    def kind(status: str, value: float) -> str:
        if status == PRUNED:
            return PRUNED
        if status != DONE or not np.isfinite(value):
            return FAILED
        return MISSED if value > horizon else HIT

    return [kind(*row) for row in zip(trials["status"], trials[objective], strict=True)]


def _places(records: StudyRecords, arm: TunedArm, trials: pd.Series[int]) -> pd.DataFrame:
    rows = records.parameters[records.parameters["arm"] == arm.label]
    columns = {p.name: _column(rows[rows["parameter"] == p.name], p) for p in arm.space}
    return pd.DataFrame(columns, index=pd.Index(trials, name="trial"), dtype=float)


def _column(rows: pd.DataFrame, parameter: Parameter) -> pd.Series[float]:
    values = rows["value"].astype(float)
    if parameter.choices:
        indices = {choice: float(index) for index, choice in enumerate(parameter.choices)}
        values = rows["text"].map(indices).astype(float)
    return pd.Series(values.to_numpy(), index=rows["trial"].to_numpy())

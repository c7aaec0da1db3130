"""The content of plan.json: an ablation by the labels of its tables."""

from __future__ import annotations

from pydantic import Field

from bdhf.records.comparison import Comparison
from bdhf.records.disk.version import RECORDS_VERSION
from bdhf.records.schema import Budget, Strict
from bdhf.records.tuning import Tuned


class PlannedArm(Strict):
    """An arm of the tables: an arm of the spec in one combination of its grid."""

    label: str
    name: str  # in the spec
    values: dict[str, str] = Field(default_factory=dict)  # axis of the grid -> value, in words
    budget: Budget
    evaluate_every: int


class PlanIndex(Strict):
    """The content of plan.json: arms of the tables, their tuning, and the comparisons."""

    records: int = RECORDS_VERSION
    arms: tuple[PlannedArm, ...] = Field(min_length=1)
    comparisons: tuple[Comparison, ...]
    tuning: Tuned | None = None  # None: the spec names no study
    twins: tuple[Comparison, ...] = ()  # of arms that are the same runs: no tests

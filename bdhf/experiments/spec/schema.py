"""The keys of a spec, with types and defaults."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic.fields import FieldInfo

from bdhf.experiments.parts.resolve import Resolved
from bdhf.records import SAFETY_SECONDS, Budget, Comparison, Figure, Strict, Target

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]

#: Seeds of an ablation, and of a trial.
_MOST_SEEDS = 10_000

#: The largest first seed: JSON readers may round larger whole numbers.
_MOST_BASE = 2**53 - _MOST_SEEDS

#: The most items of lists in which every item takes time: arms and comparisons, and targets.
MOST_ENTRIES, MOST_TARGETS = 1_000, 100

#: CPU threads of a run.
_MOST_THREADS = 1_024

#: The form of `tuned_from`: a study below `studies`.
_STUDY = re.compile(r"studies(/[A-Za-z0-9][A-Za-z0-9._-]*)+")


class BatchSizes(Strict):
    """Samples of the gradient batch and of the curvature batch."""

    gradient: int = Field(gt=0, description="Samples of the gradient batch.")
    curvature: int | float | None = Field(
        default=None,
        gt=0,
        description="Samples of the curvature batch, drawn from the gradient batch; a number below "
        "1 is a share of it. Default: all of it.",
    )

    @property
    def curvature_samples(self) -> int | None:
        """Samples of the curvature batch; None: the gradient batch itself."""
        if self.curvature is None:
            return None
        samples = round(self.curvature * (self.gradient if self.curvature < 1 else 1))
        return None if samples == self.gradient else samples


class Seeds(Strict):
    """`count` runs per arm, with seeds from `base` on."""

    count: int = Field(gt=0, le=_MOST_SEEDS, description="Runs per arm, and pairs per comparison.")
    base: int = Field(default=0, ge=0, le=_MOST_BASE, description="The first seed.")


class Evaluate(Strict):
    """How often a run is evaluated; training time excludes evaluations."""

    every_updates: int = Field(default=1, gt=0, description="Updates between evaluations.")
    off_block_energy: int | None = Field(
        default=None,
        gt=0,
        description="Probes that estimate ‖G - G_block‖ ÷ ‖G‖ at each evaluation. Default: none.",
    )


#: The least time before the first save of a run, and between saves.
CHECKPOINT_SECONDS = 60.0


class Safety(Strict):
    """Limits of the time and the cost of a run, and how often it is saved.

    A long run is saved at intervals, and resumes from the last save if it is killed.
    """

    seconds: float = Field(
        default=SAFETY_SECONDS,
        gt=0,
        description="Wall-clock seconds after which a run is stopped as `timeout`.",
    )
    gradient_equivalents: float | None = Field(
        default=None,
        gt=0,
        description="Runs with a higher estimated cost, in gradients of the gradient batch, are "
        "skipped. Default: no limit.",
    )
    checkpoint_every: int | None = Field(
        default=10,
        gt=0,
        description="Evaluations between saves of a run, at least "
        f"{CHECKPOINT_SECONDS:g} seconds apart; null: never.",
    )


class Retry(Strict):
    """How often a failed run is tried again, by status."""

    error: int = Field(default=0, ge=0, description="Retries after an error.")
    oom: int = Field(default=0, ge=0, description="Retries after running out of memory.")
    timeout: int = Field(default=0, ge=0, description="Retries after a timeout (`safety.seconds`).")


class Report(Strict):
    """The content of the report; it changes no run."""

    figures: tuple[Figure, ...] | None = Field(
        default=None, description="The figures of the report. Default: all."
    )


class CombinationSettings(Strict):
    """Values for the combinations of the grid that match other values."""

    at: dict[str, Any] = Field(
        min_length=1,
        description="Dotted paths with a value or a list of values: the combinations that have one "
        "of the values on every path.",
    )
    set: dict[str, Any] = Field(
        min_length=1, description="Dotted paths with the values that these combinations get."
    )


class Spec(Strict):
    """One ablation: arms on a problem, each with the same seeds and the same budget.

    With a grid, this is one combination: its `grid`, `exclude` and `settings` are empty, and it
    contains the included specs.
    """

    schema_version: Literal[1] = Field(
        alias="schema", description="Version of this format: always 1."
    )
    include: str | list[str] = Field(
        default_factory=list,
        description="One or several specs on which this one builds, relative to this file.",
    )
    name: Name = Field(description="Name of the ablation; the results folder is `results/NAME`.")
    problem: Resolved = Field(description="The model, its loss, its metrics and its data.")
    batch: BatchSizes
    arms: dict[Name, Resolved] = Field(
        min_length=1,
        max_length=MOST_ENTRIES,
        description="The optimizers to compare, by name.",
    )
    grid: dict[str, list[Any]] | list[dict[str, list[Any]]] = Field(
        default_factory=dict,
        description="Dotted paths, each with a list of values: every arm runs with every "
        "combination that changes its runs. A list of grids is their union.",
    )
    exclude: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Cells to exclude from the grid: `arm` (a name or a list), dotted paths with a "
        "value or a list of values, or both.",
    )
    settings: tuple[CombinationSettings, ...] = Field(
        default=(),
        description="Values for some combinations of the grid: those that match `at` get the "
        "values of `set`.",
    )
    tuned_from: str | None = Field(
        default=None,
        description="The study that the settings come from, as `studies/NAME`; the report shows "
        "how each arm was tuned.",
    )
    seeds: Seeds
    budget: Budget
    stop: Literal["at_target", "at_budget"] = Field(
        default="at_budget",
        description="A run ends when all targets are reached, or when the budget is used up.",
    )
    safety: Safety = Safety()
    retry: Retry = Retry()
    evaluate: Evaluate = Evaluate()
    targets: tuple[Target, ...] = Field(
        default=(),
        max_length=MOST_TARGETS,
        description="Metrics, with the values to reach.",
    )
    compare: tuple[Comparison, ...] = Field(
        default=(),
        max_length=MOST_ENTRIES,
        description="The questions: one test per entry, combination of the grid and, for costs, "
        "target.",
    )
    alpha: float = Field(
        default=0.05, gt=0, lt=1, description="Significance level of all tests together (Holm)."
    )
    report: Report = Report()
    dtype: Literal["float32", "float64"] = Field(
        default="float32", description="Type of parameters, gradients and vectors of the solver."
    )
    threads: int = Field(
        default=1,
        gt=0,
        le=_MOST_THREADS,
        description="CPU threads of a run; the bits of its results depend on this.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where runs compute; auto: a GPU if there is one."
    )

    @field_validator("tuned_from")
    @classmethod
    def _a_study(cls, study: str | None) -> str | None:
        if study is not None and not _STUDY.fullmatch(study):
            raise ValueError(f"give the study as `studies/NAME`; got {study!r}")
        return study

    @field_validator("problem", mode="before")
    @classmethod
    def _named_problem(cls, problem: Any) -> Any:
        return {"type": problem} if isinstance(problem, str) else problem

    @field_validator("arms", mode="before")
    @classmethod
    def _named_arms(cls, arms: Any) -> Any:
        if not isinstance(arms, dict):
            return arms
        return {k: {"type": v} if isinstance(v, str) else v for k, v in arms.items()}


def keys_in(model: type[Strict]) -> dict[str, FieldInfo]:
    """The keys of a model, by their names in YAML.

    >>> list(keys_in(Seeds)), list(keys_in(Spec))[0]
    (['count', 'base'], 'schema')
    """
    return {field.alias or name: field for name, field in model.model_fields.items()}


#: Keys of a spec that are sections; a path may lead into an omitted one.
SECTIONS = tuple(
    key
    for key, field in keys_in(Spec).items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Strict)
)

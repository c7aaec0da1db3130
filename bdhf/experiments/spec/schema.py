"""The keys of a spec: what YAML may say, its types and its defaults."""

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

#: The largest seed to begin with: whole numbers beyond are not exact in every reader of JSON.
_MOST_BASE = 2**53 - _MOST_SEEDS

#: Items of lists whose every item takes time: arms and comparisons, and targets.
MOST_ENTRIES, MOST_TARGETS = 1_000, 100

#: CPU threads of a run.
_MOST_THREADS = 1_024

#: What `tuned_from` names: a study below `studies`.
_STUDY = re.compile(r"studies(/[A-Za-z0-9][A-Za-z0-9._-]*)+")


class BatchSizes(Strict):
    """Samples of the gradient and of the curvature; below 1 is a share of the gradient batch."""

    gradient: int = Field(gt=0, description="Samples of the gradient, the loss and every update.")
    curvature: int | float | None = Field(
        default=None,
        gt=0,
        description="Samples of the curvature batch, drawn from the gradient batch; below 1 a "
        "share of it. Left out: all of it.",
    )

    @property
    def curvature_samples(self) -> int | None:
        """Samples of the curvature batch; None: the gradient batch itself."""
        if self.curvature is None:
            return None
        samples = round(self.curvature * (self.gradient if self.curvature < 1 else 1))
        return None if samples == self.gradient else samples


class Seeds(Strict):
    """`count` runs an arm, with seeds from `base` on."""

    count: int = Field(
        gt=0, le=_MOST_SEEDS, description="Runs of every arm: the pairs of a comparison."
    )
    base: int = Field(default=0, ge=0, le=_MOST_BASE, description="The first seed.")


class Evaluate(Strict):
    """How often a run is evaluated; never part of its training time."""

    every_updates: int = Field(default=1, gt=0, description="Updates from one to the next.")
    off_block_energy: int | None = Field(
        default=None,
        gt=0,
        description="Probes that estimate ‖G - G_block‖ ÷ ‖G‖ at each; left out: not estimated.",
    )


#: A run is saved no sooner than this after it began, and after it was saved last.
CHECKPOINT_SECONDS = 60.0


class Safety(Strict):
    """Wall-clock after which a run is given up as `timeout`; cost above which none is begun.

    A long run is saved on the way, and goes on from there if it is killed.
    """

    seconds: float = Field(
        default=SAFETY_SECONDS,
        gt=0,
        description="Wall-clock seconds after which a run is given up as `timeout`.",
    )
    gradient_equivalents: float | None = Field(
        default=None,
        gt=0,
        description="Estimated cost of a whole run, in gradients of the gradient batch, above "
        "which it is skipped; left out: no limit.",
    )
    checkpoint_every: int | None = Field(
        default=10,
        gt=0,
        description="Evaluations from one save of a run to the next, and no sooner than after "
        f"{CHECKPOINT_SECONDS:g} seconds; null: never.",
    )


class Retry(Strict):
    """How many times more a run is tried that ended as one of these."""

    error: int = Field(default=0, ge=0, description="Tries after an error.")
    oom: int = Field(default=0, ge=0, description="Tries after running out of memory.")
    timeout: int = Field(default=0, ge=0, description="Tries after `safety.seconds`.")


class Report(Strict):
    """What the report shows; nothing of it changes a run."""

    figures: tuple[Figure, ...] | None = Field(
        default=None, description="The figures that the report draws; left out: all."
    )


class CombinationSettings(Strict):
    """Values for the combinations of the grid that have others."""

    at: dict[str, Any] = Field(
        min_length=1,
        description="Dotted paths with a value or a list of values: the combinations that have "
        "one of each.",
    )
    set: dict[str, Any] = Field(
        min_length=1, description="Dotted paths with the value that these combinations get."
    )


class Spec(Strict):
    """One ablation: arms on a problem, each with the same seeds and the same budget.

    Of a grid this is one combination, put in its place: its own `grid`, `exclude` and `settings`
    are empty, and what it included is part of it.
    """

    schema_version: Literal[1] = Field(
        alias="schema", description="Version of this format: always 1."
    )
    include: str | list[str] = Field(
        default_factory=list,
        description="A spec, or several, that this one goes on top of; relative to this file.",
    )
    name: Name = Field(description="Name of the ablation; its results go to `results/NAME`.")
    problem: Resolved = Field(description="What is trained, on which data.")
    batch: BatchSizes
    arms: dict[Name, Resolved] = Field(
        min_length=1,
        max_length=MOST_ENTRIES,
        description="What is compared: a name and an optimizer each.",
    )
    grid: dict[str, list[Any]] | list[dict[str, list[Any]]] = Field(
        default_factory=dict,
        description="Dotted paths, each with a list of values: every arm is run with every "
        "combination that changes its runs. A list of grids is their union.",
    )
    exclude: list[dict[str, Any]] = Field(
        default_factory=list,
        description="What of the grid is left out: `arm` (a name or a list), dotted paths with a "
        "value or a list of values, or both.",
    )
    settings: tuple[CombinationSettings, ...] = Field(
        default=(),
        description="Values for some combinations of the grid: where it has those of `at`, those "
        "of `set` are put.",
    )
    tuned_from: str | None = Field(
        default=None,
        description="The study that its settings come from, as `studies/NAME`: the report says how "
        "each arm was tuned.",
    )
    seeds: Seeds
    budget: Budget
    stop: Literal["at_target", "at_budget"] = Field(
        default="at_budget",
        description="When a run ends: once all targets are reached, or when the budget is spent.",
    )
    safety: Safety = Safety()
    retry: Retry = Retry()
    evaluate: Evaluate = Evaluate()
    targets: tuple[Target, ...] = Field(
        default=(),
        max_length=MOST_TARGETS,
        description="Where a run has got to: metrics, and values to reach.",
    )
    compare: tuple[Comparison, ...] = Field(
        default=(),
        max_length=MOST_ENTRIES,
        description="The questions: a test per entry, combination of the grid and, for a cost, "
        "target.",
    )
    alpha: float = Field(
        default=0.05, gt=0, lt=1, description="Level of all tests together (Holm)."
    )
    report: Report = Report()
    dtype: Literal["float32", "float64"] = Field(
        default="float32", description="Of parameters, gradients and the vectors of the solver."
    )
    threads: int = Field(
        default=1,
        gt=0,
        le=_MOST_THREADS,
        description="CPU threads of a run; the bits of its results depend on it.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where runs compute; auto: a GPU where there is one."
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
    """The keys of a model as YAML has them.

    >>> list(keys_in(Seeds)), list(keys_in(Spec))[0]
    (['count', 'base'], 'schema')
    """
    return {field.alias or name: field for name, field in model.model_fields.items()}


#: Keys of a spec that are mappings of keys; a path may lead into one that is left out.
SECTIONS = tuple(
    key
    for key, field in keys_in(Spec).items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Strict)
)

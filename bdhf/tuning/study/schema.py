"""The keys of a study, with their types and defaults."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from bdhf.experiments.errors import unknown
from bdhf.experiments.spec.schema import MOST_ENTRIES, Name, Seeds
from bdhf.records import Estimand, Strict

#: Largest number of trials of an arm in one combination.
_MOST_TRIALS = 100_000


class Sampler(Strict):
    """The sampler: it proposes the settings of a trial from the earlier trials."""

    type: Literal["tpe", "gp", "cmaes", "random"] = Field(
        default="tpe",
        description="`tpe`: multivariate tree-structured Parzen estimator; `gp`: Gaussian process; "
        "`cmaes`: CMA-ES, for two or more ranges; `random`: random search, the control.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of all its random draws.")
    startup: int | None = Field(
        default=None,
        ge=1,
        description="Number of random trials at the start; if omitted, 10, or 1 for `cmaes`.",
    )


class Pruner(Strict):
    """The pruner: it stops trials that fall behind."""

    type: Literal["none", "median", "hyperband"] = Field(
        default="none",
        description="`median`: stops a trial that is worse than the median of the earlier trials "
        "at the same update; `hyperband`: successive halving in brackets.",
    )
    warmup: int = Field(
        default=0, ge=0, description="Updates of a run before the pruner may stop it."
    )
    startup: int = Field(
        default=5, ge=1, description="Finished trials before `median` may stop one."
    )


class StudySpec(Strict):
    """A study: search spaces for the arms of an ablation, and one number of trials for all arms."""

    schema_version: Literal[1] = Field(
        alias="schema", description="Version of this format: always 1."
    )
    name: Name = Field(description="Name of the study; its results go to `results/studies/NAME`.")
    ablation: str = Field(
        description="Path of the spec to tune, relative to this file. The spec defines problem, "
        "arms, budget, targets and grid."
    )
    set: dict[str, Any] = Field(
        default_factory=dict,
        description="Changes of the ablation: dotted paths, each with its new value.",
    )
    spaces: dict[Name, dict[str, Any]] = Field(
        min_length=1,
        max_length=MOST_ENTRIES,
        description="Search space of each arm: dotted paths below the arm, each with a range or "
        "choices. The space is the same in every combination of the ablation's grid.",
    )
    trials: int = Field(
        gt=0,
        le=_MOST_TRIALS,
        description="Number of trials of every arm in every combination of the grid.",
    )
    seeds: Seeds = Field(description="Seeds of every trial; no seed of the ablation is allowed.")
    objective: Estimand | list[Estimand] = Field(
        default="updates_to_target",
        description="Quantity to minimise, for the ablation's first target. A list gives a Pareto "
        "front; its first entry selects the best trial.",
    )
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    held_out: bool = Field(
        default=True,
        description="Whether to compare the best settings with those of the spec afterwards, on "
        "the seeds of the ablation.",
    )

    @field_validator("sampler", "pruner", mode="before")
    @classmethod
    def _named(cls, part: Any) -> Any:
        return {"type": part} if isinstance(part, str) else part

    @field_validator("objective", mode="before")
    @classmethod
    def _check_objective(cls, value: Any) -> Any:
        for objective in value if isinstance(value, list) else [value]:
            if objective not in get_args(Estimand):
                raise ValueError(unknown("objective", objective, get_args(Estimand)))
        if isinstance(value, list) and (not value or len(set(value)) < len(value)):
            raise ValueError("give one objective, or several different ones")
        return value

    @property
    def objectives(self) -> tuple[Estimand, ...]:
        """The objectives; the first one selects the best trial."""
        objective = self.objective
        return tuple(objective) if isinstance(objective, list) else (objective,)

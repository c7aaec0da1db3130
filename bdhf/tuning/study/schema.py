"""The keys of a study: what its YAML may say, its types and its defaults."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from bdhf.experiments.errors import unknown
from bdhf.experiments.spec.schema import MOST_ENTRIES, Name, Seeds
from bdhf.records import Estimand, Strict

#: Trials of an arm in one combination.
_MOST_TRIALS = 100_000


class Sampler(Strict):
    """What proposes the settings of a trial, from the trials before it."""

    type: Literal["tpe", "gp", "cmaes", "random"] = Field(
        default="tpe",
        description="`tpe`: multivariate tree-structured Parzen estimator; `gp`: Gaussian process; "
        "`cmaes`: CMA-ES, for two ranges or more; `random`: the control.",
    )
    seed: int = Field(default=0, ge=0, description="Of all that it draws.")
    startup: int | None = Field(
        default=None,
        ge=1,
        description="Random trials before it learns; left out: 10, or 1 for `cmaes`.",
    )


class Pruner(Strict):
    """What gives up a trial early that falls behind the others."""

    type: Literal["none", "median", "hyperband"] = Field(
        default="none",
        description="`median`: worse than the median of the trials before it at this point; "
        "`hyperband`: successive halving in brackets.",
    )
    warmup: int = Field(
        default=0, ge=0, description="Updates of a run before which nothing is given up."
    )
    startup: int = Field(
        default=5, ge=1, description="Finished trials before `median` gives one up."
    )


class StudySpec(Strict):
    """One study: search spaces for the arms of an ablation, and a budget that all of them share."""

    schema_version: Literal[1] = Field(
        alias="schema", description="Version of this format: always 1."
    )
    name: Name = Field(description="Name of the study; its results go to `results/studies/NAME`.")
    ablation: str = Field(
        description="The spec that is tuned, relative to this file: problem, arms, budget, targets "
        "and grid are its own."
    )
    set: dict[str, Any] = Field(
        default_factory=dict,
        description="Dotted paths into the ablation, each with a value that is put on top.",
    )
    spaces: dict[Name, dict[str, Any]] = Field(
        min_length=1,
        max_length=MOST_ENTRIES,
        description="By arm, what is searched: dotted paths below the arm, each with a range or "
        "choices. They hold in every combination of the ablation's grid.",
    )
    trials: int = Field(
        gt=0, le=_MOST_TRIALS, description="Trials of every arm in every combination of the grid."
    )
    seeds: Seeds = Field(description="Of every trial; none of the ablation's own.")
    objective: Estimand | list[Estimand] = Field(
        default="updates_to_target",
        description="What is made small, on the ablation's first target; a list of several gives "
        "a Pareto front, and its first decides what is best.",
    )
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    held_out: bool = Field(
        default=True,
        description="Whether the best settings are compared with those of the spec afterwards, on "
        "the seeds of the ablation.",
    )

    @field_validator("sampler", "pruner", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"type": given} if isinstance(given, str) else given

    @field_validator("objective", mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        for one in given if isinstance(given, list) else [given]:
            if one not in get_args(Estimand):
                raise ValueError(unknown("objective", one, get_args(Estimand)))
        if isinstance(given, list) and (not given or len(set(given)) < len(given)):
            raise ValueError("give one objective, or several that differ")
        return given

    @property
    def objectives(self) -> tuple[Estimand, ...]:
        """The objectives, the one that decides first."""
        given = self.objective
        return tuple(given) if isinstance(given, list) else (given,)

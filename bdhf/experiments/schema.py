"""The keys of a spec: what YAML may say, its types and its defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from bdhf.experiments.parts import Resolved
from bdhf.records import Budget, Comparison, Strict, Target

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


class BatchSizes(Strict):
    """Samples of the gradient and of the curvature; below 1 is a share of the gradient batch."""

    gradient: int = Field(gt=0)
    curvature: int | float | None = Field(default=None, gt=0)

    @property
    def curvature_samples(self) -> int | None:
        """Samples of the curvature batch; None: the gradient batch itself."""
        if self.curvature is None:
            return None
        samples = round(self.curvature * (self.gradient if self.curvature < 1 else 1))
        return None if samples == self.gradient else samples


class Seeds(Strict):
    """`count` runs an arm, with seeds from `base` on."""

    count: int = Field(gt=0)
    base: int = Field(default=0, ge=0)


class Evaluate(Strict):
    """How often a run is evaluated; never part of its training time."""

    every_updates: int = Field(default=1, gt=0)
    off_block_energy: int | None = Field(default=None, gt=0)  # probes: ‖G - G_block‖ ÷ ‖G‖


#: A run is saved no sooner than this after it began, and after it was saved last.
CHECKPOINT_SECONDS = 60.0


class Safety(Strict):
    """Wall-clock after which a run is given up as `timeout`; cost above which none is begun.

    A long run is saved on the way, and goes on from there if it is killed.
    """

    seconds: float = Field(default=3600.0, gt=0)
    gradient_equivalents: float | None = Field(default=None, gt=0)  # estimated, of a whole run
    checkpoint_every: int | None = Field(default=10, gt=0)  # evaluations; null: never


class Retry(Strict):
    """How many times more a run is tried that ended as one of these."""

    error: int = Field(default=0, ge=0)
    oom: int = Field(default=0, ge=0)
    timeout: int = Field(default=0, ge=0)


class Spec(Strict):
    """One ablation: arms on a problem, each with the same seeds and the same budget.

    Of a grid this is one combination, put in its place: its own `grid` and `exclude` are empty, and
    what it included is part of it.
    """

    schema_version: Literal[1] = Field(alias="schema")
    include: str | list[str] = Field(default_factory=list)
    name: Name
    problem: Resolved
    batch: BatchSizes
    arms: dict[Name, Resolved] = Field(min_length=1)
    grid: dict[str, list[Any]] | list[dict[str, list[Any]]] = Field(default_factory=dict)
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    seeds: Seeds
    budget: Budget
    stop: Literal["at_target", "at_budget"] = "at_budget"
    safety: Safety = Safety()
    retry: Retry = Retry()
    evaluate: Evaluate = Evaluate()
    targets: tuple[Target, ...] = ()
    compare: tuple[Comparison, ...] = ()
    alpha: float = Field(default=0.05, gt=0, lt=1)
    dtype: Literal["float32", "float64"] = "float32"
    threads: int = Field(default=1, gt=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @field_validator("problem", mode="before")
    @classmethod
    def _named_problem(cls, given: Any) -> Any:
        return {"type": given} if isinstance(given, str) else given

    @field_validator("arms", mode="before")
    @classmethod
    def _named_arms(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {k: {"type": v} if isinstance(v, str) else v for k, v in given.items()}

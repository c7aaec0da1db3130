"""The words of the records: statuses, axes, targets and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Status(StrEnum):
    """How a run ended, always with a reason."""

    DONE = "done"
    DIVERGED = "diverged"
    OOM = "oom"
    ERROR = "error"
    TIMEOUT = "timeout"
    SKIPPED = "skipped"

    @property
    def is_missing(self) -> bool:
        """Whether it leaves no outcome behind: missing data. A diverged run is a miss instead."""
        return self in (Status.OOM, Status.ERROR, Status.TIMEOUT, Status.SKIPPED)


#: Seconds of wall-clock after which a run is given up, unless its spec says otherwise.
SAFETY_SECONDS = 3600.0

#: The statuses of missing data.
MISSING = tuple(status for status in Status if status.is_missing)

#: Those of runs that were begun and failed; a diverged run is an outcome.
FAILED = tuple(status for status in MISSING if status is not Status.SKIPPED)

#: Axes on which the cost of a run is counted: name -> (column of a curve, unit in words).
AXES: Mapping[str, tuple[str, str]] = {
    "updates": ("update", "updates"),
    "epochs": ("epoch", "epochs"),
    "products": ("products", "curvature products"),
    "gradient_equivalents": ("gradient_equivalents", "gradient equivalents"),
    "seconds": ("seconds", "seconds of training"),
}


class Strict(BaseModel):
    """A record that takes no unknown key and cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Target(Strict):
    """A metric at or below a value for `sustain` evaluations in a row; the first one counts."""

    metric: str = Field(description="A metric of the problem on a part: `val_loss`, `train_loss`.")
    below: float = Field(description="The value to reach: at or below counts.")
    sustain: int = Field(default=1, ge=1, description="Evaluations in a row that it must hold.")

    @property
    def label(self) -> str:
        """The target in words: `val_loss ≤ 0.02`."""
        held = f" for {self.sustain} evaluations" if self.sustain > 1 else ""
        return f"{self.metric} ≤ {self.below:g}{held}"


Estimand = Literal[
    "updates_to_target",
    "epochs_to_target",
    "products_to_target",
    "gradient_equivalents_to_target",
    "seconds_to_target",
    "final_loss",
    "best_loss",
    "area_under_curve",
]

#: Estimands that are losses and need no target: name -> in words.
LOSSES: Mapping[str, str] = {
    "final_loss": "final validation loss",
    "best_loss": "best validation loss",
    "area_under_curve": "mean validation loss over the budget",
}


class Comparison(Strict):
    """One question of the ablation: is `candidate` better than `baseline`?"""

    name: str = Field(min_length=1, description="What the report calls it; no two alike.")
    candidate: str = Field(description="The arm that may be better.")
    baseline: str = Field(description="The arm that it is held against.")
    estimand: Estimand = Field(
        default="updates_to_target",
        description="What is compared, less is better: a cost to target, or a validation loss.",
    )
    margin: float | None = Field(
        default=None,
        gt=1,
        description="Ratio within which the arms count as equivalent: 1.1 is within 10 %. Left "
        "out: no verdict `equivalent`.",
    )
    log_ratio_sd: float | None = Field(
        default=None,
        gt=0,
        description="Standard deviation over seeds of the log of the ratio, from a pilot: "
        "`bdhf plan` tells the power that it leaves. Left out: that of finished runs.",
    )

    @property
    def is_to_target(self) -> bool:
        """Whether a cost to a target is compared; otherwise it is a loss."""
        return self.estimand not in LOSSES

    @property
    def axis(self) -> str:
        """The axis of a cost to target, a key of `AXES`. Raises ValueError for a loss."""
        return axis_of(self.estimand)


def axis_of(estimand: str) -> str:
    """The axis of a cost to target, a key of `AXES`. Raises ValueError for a loss.

    >>> axis_of("seconds_to_target")
    'seconds'
    """
    axis = estimand.removesuffix("_to_target")
    if axis not in AXES:
        raise ValueError(f"estimand: {estimand!r} is no cost to target, and has no axis")
    return axis


def unit_of(estimand: str) -> str:
    """What an estimand is counted in, in words.

    >>> unit_of("updates_to_target"), unit_of("final_loss")
    ('updates', 'final validation loss')
    """
    return LOSSES[estimand] if estimand in LOSSES else AXES[axis_of(estimand)][1]


def tests_of(
    comparisons: Sequence[Comparison], targets: Sequence[Target]
) -> tuple[tuple[Comparison, Target | None], ...]:
    """Every test of an ablation, in order: a cost once per target, a loss once.

    Holm's correction and the power guard count these.
    """
    return tuple(
        (entry, target)
        for entry in comparisons
        for target in (targets if entry.is_to_target else (None,))
    )


Figure = Literal[
    "curves", "survival", "forest", "profile", "scaling", "diagnostics", "ranks", "multiverse"
]


class Budget(Strict):
    """Where a run that has not reached its target is censored: one axis, one limit."""

    updates: int | None = Field(default=None, gt=0, description="Updates of the parameters.")
    epochs: float | None = Field(default=None, gt=0, description="Passes over the training data.")
    products: float | None = Field(default=None, gt=0, description="Full curvature products.")
    gradient_equivalents: float | None = Field(
        default=None, gt=0, description="FLOPs ÷ those of one gradient on the gradient batch."
    )
    seconds: float | None = Field(
        default=None, gt=0, description="Seconds of training, evaluation excluded."
    )

    @model_validator(mode="after")
    def _one_axis(self) -> Budget:
        if sum(value is not None for value in self.model_dump().values()) != 1:
            raise ValueError(f"name exactly one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def axis(self) -> str:
        """The axis that the budget names, a key of `AXES`."""
        return next(name for name, value in self.model_dump().items() if value is not None)

    @property
    def limit(self) -> float:
        """The limit on that axis."""
        return float(getattr(self, self.axis))

"""The words of the records: statuses, axes, targets and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)


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
        """Whether a run with it has no outcome: missing data. A diverged run is a miss instead."""
        return self in (Status.OOM, Status.ERROR, Status.TIMEOUT, Status.SKIPPED)


#: Wall-clock seconds after which a run is stopped, unless its spec sets another limit.
SAFETY_SECONDS = 3600.0

#: The statuses of missing data.
MISSING = tuple(status for status in Status if status.is_missing)

#: Those of runs that started and failed; a diverged run is an outcome.
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


#: The two keys of a target's value: the side on which it is met.
_SIDES = ("below", "above")


class Target(Strict):
    """A metric at or beyond a value for `sustain` evaluations in a row; the first one counts."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [side]} for side in _SIDES]}
    )

    metric: str = Field(description="A metric of the problem on a part: `val_loss`, `train_loss`.")
    below: float | None = Field(
        default=None,
        description="The value to reach (≤), for a metric that is better when lower. Exactly one "
        "of `below` and `above`.",
    )
    above: float | None = Field(
        default=None,
        description="The value to reach (≥), for a metric that is better when higher.",
    )
    sustain: int = Field(
        default=1, ge=1, description="Number of evaluations in a row that must meet it."
    )

    @model_validator(mode="after")
    def _one_side(self) -> Target:
        if self.below is None and self.above is None:
            raise ValueError(
                "give the value to reach: `below` for a metric that is better when lower, `above` "
                "for one that is better when higher"
            )
        if self.below is not None and self.above is not None:
            raise ValueError("give one of `below` and `above`; two values are two targets")
        return self

    @model_serializer(mode="wrap")
    def _without_the_other_side(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the side that is not set: older versions do not accept `above`."""
        return {k: v for k, v in plain(self).items() if v is not None or k not in _SIDES}

    def __repr_args__(self) -> Any:
        """Leave it out here too: fingerprints of studies depend on this text."""
        return [(k, v) for k, v in super().__repr_args__() if v is not None or k not in _SIDES]

    @property
    def value(self) -> float:
        """The value to reach."""
        return float(self.below if self.above is None else self.above)  # type: ignore[arg-type]

    @property
    def is_upward(self) -> bool:
        """Whether it is reached from below: higher values are better."""
        return self.above is not None

    @property
    def label(self) -> str:
        """The target in words: `val_loss ≤ 0.02`, `val_accuracy ≥ 0.9`."""
        held = f" for {self.sustain} evaluations" if self.sustain > 1 else ""
        return f"{self.metric} {'≥' if self.is_upward else '≤'} {self.value:g}{held}"

    def met(self, values: ArrayLike) -> NDArray[np.bool_]:
        """Whether each value of the metric is at or beyond the target; NaN is not.

        >>> Target(metric="val_accuracy", above=0.9).met([0.8, 0.9, float("nan")]).tolist()
        [False, True, False]
        """
        array = np.asarray(values, dtype=float)
        return np.asarray(array >= self.value if self.is_upward else array <= self.value)

    def short_of(self, values: ArrayLike) -> NDArray[np.float64]:
        """Distance of every value to the target, in units of the metric; above 0 it is not met.

        >>> Target(metric="val_accuracy", above=0.75).short_of([0.5, 1.0]).tolist()
        [0.25, -0.25]
        """
        distance = np.asarray(values, dtype=float) - self.value
        return -distance if self.is_upward else distance


Figure = Literal[
    "curves", "survival", "forest", "profile", "scaling", "diagnostics", "ranks", "multiverse"
]


class Budget(Strict):
    """The limit at which a run without a hit is censored, on one axis."""

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

"""What is compared: two arms by an estimand, a cost to a target or a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from bdhf.records.schema import AXES, Strict, Target

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

    name: str = Field(min_length=1, description="Its name in the report; must be unique.")
    candidate: str = Field(description="The arm that may be better.")
    baseline: str = Field(description="The arm that the candidate is compared with.")
    estimand: Estimand = Field(
        default="updates_to_target",
        description="What is compared; lower is better: a cost to target, or a validation loss.",
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
        description="Standard deviation over seeds of the log ratio, from a pilot: `bdhf plan` "
        "reports the resulting power. Left out: that of finished runs.",
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
        raise ValueError(f"estimand: {estimand!r} is not a cost to target and has no axis")
    return axis


def unit_of(estimand: str) -> str:
    """The unit of an estimand, in words.

    >>> unit_of("updates_to_target"), unit_of("final_loss")
    ('updates', 'final validation loss')
    """
    return LOSSES[estimand] if estimand in LOSSES else AXES[axis_of(estimand)][1]


def tests_of(
    comparisons: Sequence[Comparison], targets: Sequence[Target]
) -> tuple[tuple[Comparison, Target | None], ...]:
    """Every test of an ablation, in order: a cost once per target, a loss once.

    Holm's correction and the power check count these.
    """
    return tuple(
        (entry, target)
        for entry in comparisons
        for target in (targets if entry.is_to_target else (None,))
    )

"""What a tracker is: an observer that copies runs to where somebody looks at them.

The records of an ablation are the truth. A tracker reads none and changes none; what it has
written may be deleted at any time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

from bdhf.experiments.observers.observer import Observer
from bdhf.experiments.plan.runspec import RunSpec


class Tracker(Observer, Protocol):
    """An observer that keeps something open for every run that is under way."""

    def close(self) -> None:
        """Let go of the runs that have not ended: no more will be told of them."""


def measured(row: Mapping[str, float]) -> dict[str, float]:
    """Give the values of a row that were measured, by column; `update` is their place, not one.

    >>> measured({"update": 2, "val_loss": 0.5, "damping": float("nan")})
    {'val_loss': 0.5}
    """
    return {
        name: float(value)
        for name, value in row.items()
        if name != "update" and not math.isnan(value)
    }


def settings(run: RunSpec) -> dict[str, float | str]:
    """Give the whole content of a run by dotted names: `optimizer.solver.max_iters: 30`.

    Numbers and texts stay what they are, anything else becomes JSON; what is null is left out.
    """
    return _flat("", run.model_dump(mode="json"))


def _flat(prefix: str, value: Any) -> dict[str, float | str]:
    if isinstance(value, dict):
        start = f"{prefix}." if prefix else ""
        parts = [_flat(f"{start}{key}", inner) for key, inner in value.items()]
        return {name: inner for part in parts for name, inner in part.items()}
    if value is None:
        return {}
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return {prefix: value}
    return {prefix: json.dumps(value)}

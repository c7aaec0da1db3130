"""Trackers: observers that copy runs to a viewer.

The records of an ablation are the source of truth. A tracker neither reads nor changes them; its
files may be deleted at any time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

from bdhf.experiments.observers.observer import Observer
from bdhf.experiments.plan.runspec import RunSpec


class Tracker(Observer, Protocol):
    """An observer that keeps something open for every run under way."""

    def close(self) -> None:
        """Close the runs that have not ended: no more calls for them follow."""


def measured(row: Mapping[str, float]) -> dict[str, float]:
    """The measured values of a row, by column; without `update`, which is their position.

    >>> measured({"update": 2, "val_loss": 0.5, "damping": float("nan")})
    {'val_loss': 0.5}
    """
    return {
        name: float(value)
        for name, value in row.items()
        if name != "update" and not math.isnan(value)
    }


def settings(run: RunSpec) -> dict[str, float | str]:
    """The whole spec of a run by dotted names: `optimizer.solver.max_iters: 30`.

    Numbers and strings stay, null is left out, anything else becomes JSON.
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

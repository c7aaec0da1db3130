"""Observers of runs: a terminal, a log or a tracker. Never the source of truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from bdhf.experiments.plan.runspec import RunSpec


class Observer(Protocol):
    """Is called when a run starts, is evaluated and ends."""

    def started(self, run: RunSpec) -> None:
        """A run begins."""

    def evaluated(self, run: RunSpec, row: Mapping[str, float]) -> None:
        """A row of the curve was measured."""

    def finished(self, run: RunSpec, status: str, reason: str) -> None:
        """A run has ended."""

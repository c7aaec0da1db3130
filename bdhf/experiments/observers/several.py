"""Several observers as one, and a guard, so that a failing observer never ends a run.

A new method of `Observer` needs one line in each of the two classes here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bdhf.experiments.observers.observer import Observer
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.records import of_what_kind


@dataclass(frozen=True)
class Together:
    """Calls several observers in order."""

    observers: tuple[Observer, ...]

    def started(self, run: RunSpec) -> None:
        """A run begins."""
        for observer in self.observers:
            observer.started(run)

    def evaluated(self, run: RunSpec, row: Mapping[str, float]) -> None:
        """A row of the curve was measured."""
        for observer in self.observers:
            observer.evaluated(run, row)

    def finished(self, run: RunSpec, status: str, reason: str) -> None:
        """A run has ended."""
        for observer in self.observers:
            observer.finished(run, status, reason)


def together(*observers: Observer) -> Observer:
    """One observer of several, for example of a terminal and of trackers."""
    return Together(observers)


class GuardedObserver:
    """Calls an observer until it raises, then warns once and calls it no more.

    If anything in it fails (a server, a disk, a package), the runs and their records continue.
    """

    def __init__(self, name: str, observer: Observer, warn: Callable[[str], None]) -> None:
        self._name, self._observer, self._warn = name, observer, warn
        self._failed = False

    def started(self, run: RunSpec) -> None:
        """A run begins."""
        self.attempt(lambda: self._observer.started(run))

    def evaluated(self, run: RunSpec, row: Mapping[str, float]) -> None:
        """A row of the curve was measured."""
        self.attempt(lambda: self._observer.evaluated(run, row))

    def finished(self, run: RunSpec, status: str, reason: str) -> None:
        """A run has ended."""
        self.attempt(lambda: self._observer.finished(run, status, reason))

    def attempt(self, call: Callable[[], None]) -> None:
        """Make a call, unless one before it failed."""
        if self._failed:
            return
        try:
            call()
        except Exception as error:
            self._failed = True
            self._warn(
                f"warning: {self._name} is off from now on ({of_what_kind(error)}); "
                "the runs and their records are not affected"
            )

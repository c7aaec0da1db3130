"""Several observers as one, and an observer that cannot cost a run.

A method that `Observer` gains is one line in each of the two classes here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bdhf.experiments.observers.observer import Observer
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.records import of_what_kind


@dataclass(frozen=True)
class Together:
    """Tells several observers of everything, in their order."""

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
    """Make one observer of several: a terminal and what `tracking` gives, for one."""
    return Together(observers)


class GuardedObserver:
    """Tells an observer until it raises, then says so once and leaves it alone.

    Whatever fails there (a server, a disk, a package), the runs and their records go on without.
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

    def attempt(self, tell: Callable[[], None]) -> None:
        """Call `tell`, unless a call before it failed."""
        if self._failed:
            return
        try:
            tell()
        except Exception as error:
            self._failed = True
            self._warn(
                f"warning: {self._name} is off from here on ({of_what_kind(error)}); "
                "the runs and their records are not affected"
            )

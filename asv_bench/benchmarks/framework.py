"""The work around the runs: reading a spec, planning, collecting, reporting."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .moved import named
from .synthetic import folder_to_read, folder_to_report, spec_of
from .tracked import Timed, amount, count

if TYPE_CHECKING:
    from bdhf.experiments.plan.expand import Plan


class Spec(Timed):
    """A spec of three arms and a grid: 400 cells for every learning rate in it, and 50."""

    param_names = ("learning rates",)
    params = ((1, 10),)

    def setup(self, rates: int) -> None:
        """Write the spec."""
        self.text = spec_of(rates)

    def time_parse(self, _: int) -> None:
        """Seconds of reading and checking it."""
        named("variants")(named("parse")(self.text))

    def time_plan(self, _: int) -> None:
        """Seconds of reading it and planning every cell."""
        self._plan()

    @count("cells")
    def track_cells(self, _: int) -> int:
        """Cells of the plan."""
        return len(self._plan().cells)

    @count("runs")
    def track_runs(self, _: int) -> int:
        """Different runs of the plan: an id that two cells share is one."""
        return len({cell.run_id for cell in self._plan().cells})

    def _plan(self) -> Plan:
        plan: Plan = named("expand")(named("variants")(named("parse")(self.text)))
        return plan


class Results(Timed):
    """A results folder whose runs have all ended, with 50 evaluations each."""

    param_names = ("runs",)
    params = ((40, 400),)
    repeat = (3, 5, 3.0)

    def setup(self, runs: int) -> None:
        """Take a folder that has been collected once, as a reader meets it."""
        self.folder = _to_read(runs)

    def time_collect(self, _: int) -> None:
        """Seconds of writing the tables of all runs."""
        from bdhf.records import collect

        collect(self.folder)

    def time_load(self, _: int) -> None:
        """Seconds of reading the tables."""
        from bdhf.records import load

        load(self.folder)


class Report(Timed):
    """The report of an ablation of two arms, eight seeds each, 20 evaluations."""

    repeat = (2, 3, 10.0)
    timeout = 300.0

    def setup(self) -> None:
        """Take a folder that has been collected."""
        self.folder = _to_report()

    def time_compare(self) -> None:
        """Seconds of all statistics."""
        from bdhf.records import load
        from bdhf.stats.compare import compare

        compare(load(self.folder))

    def time_build(self) -> None:
        """Seconds of all statistics, figures and the page."""
        self._build()

    @amount("bytes")
    def track_page(self) -> int:
        """Bytes of the page."""
        return self._build().stat().st_size

    def _build(self) -> Path:
        from bdhf.report import build

        return build(self.folder)[1]


@lru_cache(maxsize=1)
def _to_read(runs: int) -> Path:
    from bdhf.records import collect

    folder = folder_to_read(_temporary(f"read-{runs}"), runs, runs, 50)
    collect(folder)
    return folder


@lru_cache(maxsize=1)
def _to_report() -> Path:
    from bdhf.records import collect

    folder = folder_to_report(_temporary("report"), 16, 20, ("full_hf", "block_hf"))
    collect(folder)
    return folder


def _temporary(name: str) -> Path:
    """A new folder in the current one, which the caller of a benchmark creates and removes."""
    return Path(tempfile.mkdtemp(prefix="made-up-", dir=Path.cwd())) / name

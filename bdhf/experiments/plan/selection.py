"""A part of a plan: some arms, some runs, or the share of one machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bdhf.experiments.errors import unknown
from bdhf.experiments.plan.expand import Cell, Plan
from bdhf.records import InputError


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count`, from 1: a contiguous part of the plan, so that pairs stay together.

    >>> Shard.parse("2/3")
    Shard(index=2, count=3)
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `i/n`. Raises InputError."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        index, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= index <= count:
            raise InputError([f"--shard {text}: give i/n with i from 1 to n: --shard 1/4"])
        return cls(index, count)

    def holds(self, run_index: int, total: int) -> bool:
        """Whether the run with this index, from 0, of `total` is in the share."""
        return run_index * self.count // total == self.index - 1


@dataclass(frozen=True)
class Selection:
    """Selects cells of a plan by arm or run id, and by share; without both, all."""

    only: tuple[str, ...] = ()  # names of arms, labels (with * and ?), or prefixes of run ids
    shard: Shard | None = None

    def cells(self, plan: Plan) -> tuple[Cell, ...]:
        """The selected cells. Raises InputError for a name that no cell has."""
        names = {arm.label: arm.name for arm in plan.arms}
        for wanted in self.only:
            if not any(_matches(wanted, cell, names[cell.arm]) for cell in plan.cells):
                names_of_arms = list(dict.fromkeys(names.values()))
                raise InputError(
                    [f"--only {wanted}: {unknown('arm, label or run', wanted, names_of_arms)}"]
                )
        cells = [
            cell
            for cell in plan.cells
            if not self.only or any(_matches(w, cell, names[cell.arm]) for w in self.only)
        ]
        if self.shard is None:
            return tuple(cells)
        runs = list(dict.fromkeys(cell.run_id for cell in cells))
        share = {
            run for run_index, run in enumerate(runs) if self.shard.holds(run_index, len(runs))
        }
        return tuple(cell for cell in cells if cell.run_id in share)


def _matches(wanted: str, cell: Cell, name: str) -> bool:
    return (
        wanted in (name, cell.arm)
        or fnmatchcase(cell.arm, wanted)
        or (len(wanted) >= 4 and cell.run_id.startswith(wanted))
    )

"""The progress of runs: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bdhf.experiments.observers.observer import Observer
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.records import AXES
from bdhf.text.printable import on_a_line


@contextmanager
def watching(labels: Mapping[str, str], total: int, console: Console) -> Iterator[Observer]:
    """Live bars on a terminal, plain lines elsewhere."""
    if console.is_terminal and total:
        bars = Bars(labels, total, console)
        with bars.progress:
            yield bars
    else:
        yield Lines(labels, total, lambda line: console.print(line, markup=False))


@dataclass
class Lines:
    """One plain line per finished run: for logs and pipes."""

    labels: Mapping[str, str]  # run id -> "arm seed 3"
    total: int
    write: Callable[[str], None]
    _begun: float = field(default_factory=time.monotonic)
    _done: int = 0
    _last: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def started(self, run: RunSpec) -> None:
        """Print nothing yet."""

    def evaluated(self, run: RunSpec, row: Mapping[str, float]) -> None:
        """Keep the last row for the line at the end."""
        self._last[run.run_id] = row

    def finished(self, run: RunSpec, status: str, reason: str) -> None:
        """Write the run, its status and reason, its last row, and the time left."""
        self._done += 1
        row = self._last.pop(run.run_id, None)
        where = (
            f"{row['update']:.0f} updates, val_loss {row['val_loss']:.5g}" if row else "no update"
        )
        left = (time.monotonic() - self._begun) / self._done * (self.total - self._done)
        self.write(
            f"[{self._done}/{self.total}] {self.labels[run.run_id]}: {status} ({reason}), {where}"
            + (f"; about {left:.0f} s left" if self._done < self.total else "")
        )


class Bars:
    """Live bars on a terminal: one for the ablation, one per run under way."""

    def __init__(self, labels: Mapping[str, str], total: int, console: Console) -> None:
        self._labels = labels
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )
        self._all = self.progress.add_task("all runs", total=total, note="")
        self._tasks: dict[str, TaskID] = {}

    def started(self, run: RunSpec) -> None:
        """Open a bar for the run, as long as its budget."""
        self._tasks[run.run_id] = self.progress.add_task(
            on_a_line(self._labels[run.run_id]), total=run.budget.limit, note=""
        )

    def evaluated(self, run: RunSpec, row: Mapping[str, float]) -> None:
        """Show the progress and the loss."""
        spent = row[AXES[run.budget.axis][0]]
        note = f"update {row['update']:.0f}, val_loss {row['val_loss']:.4g}"
        self.progress.update(self._tasks[run.run_id], completed=spent, note=note)

    def finished(self, run: RunSpec, status: str, reason: str) -> None:
        """Close its bar; print the status and reason unless it is done."""
        task = self._tasks.pop(run.run_id, None)
        if task is not None:
            self.progress.remove_task(task)
        if status != "done":
            self.progress.console.print(
                f"{self._labels[run.run_id]}: {status} ({reason})", highlight=False, markup=False
            )
        self.progress.advance(self._all)

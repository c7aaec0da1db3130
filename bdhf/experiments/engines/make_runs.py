"""The work of a worker process of an ablation: it executes and writes one run after another."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from bdhf.experiments.engines.ending import Ending, saved_first
from bdhf.experiments.engines.execution import Execution
from bdhf.experiments.engines.process import Parent
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.run.execute import Outcome
from bdhf.experiments.run.training import Row
from bdhf.experiments.spec.schema import Safety
from bdhf.experiments.storage.claims import Claim, holds, living
from bdhf.experiments.storage.store import Store

#: Kinds of messages of a worker: a row of its run, a line for the user, status and reason of its
#: run, and that another process has taken the run over.
ROW, NOTE, ENDED, LOST = "row", "note", "ended", "lost"

#: Seconds between two counts of the runs under way on this machine.
_LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Job:
    """A run, as a worker receives it."""

    run: RunSpec
    claim: Claim
    device: str
    safety: Safety


class _Company:
    """The most runs of this ablation that were seen under way on this machine at once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._last, self.most = folder, 0.0, 1
        self.look()

    def look(self) -> None:
        """Count again."""
        here = sum(claim.owner.is_here for claim in living(self._folder))
        self.most, self._last = max(self.most, here), time.monotonic()

    def look_at_times(self) -> None:
        """Count again if the last count is some time ago."""
        if time.monotonic() - self._last > _LOOK_SECONDS:
            self.look()


def make_runs(parent: Parent, folder: Path) -> None:
    """Execute the runs from the parent of this process, and report how each ended.

    Raises StorageError, and KeyboardInterrupt after a signal to end: then the run is saved.
    """
    store = Store(folder)
    for job in parent.jobs():
        with saved_first() as ending:
            outcome = _make(job, store, parent, ending)
            if outcome is None:
                parent.send(LOST)
            else:
                parent.send(ENDED, (str(outcome.status), outcome.reason))


def _make(job: Job, store: Store, parent: Parent, ending: Ending) -> Outcome | None:
    """Execute a run and write it; None if another process has taken it over meanwhile."""
    company, execution = _Company(store.folder), Execution(job.run, store, job.device, job.safety)
    if job.device.startswith("cuda"):
        torch.cuda.set_device(job.device)

    def observe(row: Row) -> None:
        company.look_at_times()
        parent.send(ROW, row)

    outcome = execution.make(ending, observe=observe, note=lambda line: parent.send(NOTE, line))
    company.look()
    with store.writing():
        if not holds(store.folder, job.claim):
            return None
        execution.write(outcome, concurrent=company.most)
    return outcome

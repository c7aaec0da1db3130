"""A study in worker processes of this machine. Each worker tunes one arm after another.

An arm has one worker at a time, so its trials do not depend on how many arms are tuned at once. A
worker that was killed is replaced, and its trial repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from bdhf.experiments.engines.ending import SAVE_SECONDS
from bdhf.experiments.engines.interrupt import interruptible
from bdhf.experiments.engines.pool import WorkerPool, WorkerSlot
from bdhf.experiments.engines.process import FAULT, Parent, WorkerProcess
from bdhf.records import InputError, Owner
from bdhf.tuning.sampling.trial_slots import TrialSlots
from bdhf.tuning.storage.storage import StudyLocation
from bdhf.tuning.study.study import Study, StudyCell, open_study
from bdhf.tuning.workers.progress import line_of
from bdhf.tuning.workers.recovery import MOST_DEATHS
from bdhf.tuning.workers.trial_loop import TrialLoop

#: Seconds for workers to end cleanly, after their runs are saved.
_PATIENCE_SECONDS = 10.0

#: Kinds of messages of a worker: a line about a trial that has ended; its arm is tuned.
_TRIAL, _TUNED = "trial", "tuned"


@dataclass(frozen=True)
class ArmPool:
    """Tunes arms with several workers; `say` gets a line about every trial that ends."""

    study: Study
    location: StudyLocation
    workers: int
    say: Callable[[str], None]

    def tune(self, labels: Sequence[str]) -> None:
        """Make all trials of these arms.

        Raises KeyboardInterrupt when it is interrupted, and InputError where the storage fails.
        """
        left, pool = deque(labels), WorkerPool[str](self._start_worker)
        with interruptible():
            try:
                pool.start(min(self.workers, len(left)))
                while left or pool.busy:
                    for slot in pool.free[: len(left)]:
                        pool.give(slot, left.popleft())
                    for slot, kind, content in pool.messages():
                        self._take_in(pool, slot, kind, content)
            finally:  # so that runs are saved and trials count as interrupted
                pool.stop(pool.busy, SAVE_SECONDS + _PATIENCE_SECONDS)
                pool.close()

    def _start_worker(self, slot: int) -> WorkerProcess:
        study, pool = self.study, str(Owner.here())
        return WorkerProcess.start(_tune, study.file, study.settings, self.location, slot, pool)

    def _take_in(
        self, pool: WorkerPool[str], slot: WorkerSlot[str], kind: str, content: Any
    ) -> None:
        """Process a message of the worker in a slot, or its end."""
        if kind == FAULT:
            raise InputError(content)
        if kind == _TRIAL:
            self.say(content)
        elif kind == _TUNED:
            slot.job = None
        elif pool.retry(slot, MOST_DEATHS * self.study.spec.trials):
            self.say(f"{slot.job}: a worker ended with {content.code}; a new one continues")
        else:
            raise InputError([f"{slot.job}: its workers keep ending; their messages are on stderr"])


def _tune(
    parent: Parent,
    file: Path,
    settings: Sequence[str],
    location: StudyLocation,
    slot: int,
    pool: str,
) -> None:
    """Tune the arms that the parent process assigns."""

    def report(cell: StudyCell, trial: FrozenTrial, now: TrialSlots) -> None:
        parent.send(_TRIAL, line_of(cell, trial, now))

    loop = TrialLoop(open_study(file, settings), location, report, slot=slot, pool=pool)
    for label in parent.jobs():
        loop.run([label])
        parent.send(_TUNED)

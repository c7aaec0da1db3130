"""The next run: one without an outcome that no other process has claimed."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence

from bdhf.experiments.engines.retry import Again
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.storage.claims import Claim, Claims, living
from bdhf.experiments.storage.store import Store
from bdhf.records import Status, clock_of, ended

#: Seconds between two checks of runs that other processes have claimed.
POLL_SECONDS = 1.0


class Queue:
    """The runs still to do, in order; those claimed by other processes are checked again later."""

    def __init__(self, todo: Sequence[RunSpec], store: Store, claims: Claims, again: Again) -> None:
        self._next, self._held = deque(todo), deque[RunSpec]()
        self._looked = -math.inf
        self._store, self._claims, self._again = store, claims, again
        there = ended(store.folder, [run.run_id for run in todo])
        self._before = {
            run_id: status
            for run_id, status in there.items()
            if Status(status["status"]).is_missing
        }  # to be repeated

    def __len__(self) -> int:
        return len(self._next) + len(self._held)

    def take(self) -> tuple[RunSpec, Claim] | None:
        """The next run, claimed; None if none is left, or others have claimed all that are left.

        Raises OSError if nothing can be written.
        """
        if not self._next and time.monotonic() - self._looked > POLL_SECONDS:
            self._next, self._held, self._looked = self._held, deque(), time.monotonic()
        while self._next:
            run = self._next.popleft()
            if self._is_settled(run):
                continue
            claim = self._claims.take(run.run_id)
            if claim is None:
                self._held.append(run)
                continue
            clock_of(self._store.runs)  # a write makes a client of NFS read the folder again
            if self._is_settled(run):  # between the check and the claim
                self._claims.release(claim)
                continue
            return run, claim
        return None

    def ended(self, run: RunSpec, claim: Claim) -> None:
        """Release the run; queue it again if the policy repeats it, or if it was lost."""
        self._claims.release(claim)
        if not self._is_settled(run):
            self._next.append(run)

    def holders(self) -> tuple[Claim, ...]:
        """The claims on the runs that are left."""
        waiting = {run.run_id for run in (*self._next, *self._held)}
        return tuple(c for c in living(self._store.folder) if c.run_id in waiting)

    def _is_settled(self, run: RunSpec) -> bool:
        """Whether the run has ended since this process started, and is not to be repeated."""
        status = self._store.status(run.run_id)
        if status is None or status == self._before.get(run.run_id):
            return False
        return not self._again.wants(status, once=False)

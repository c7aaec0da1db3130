"""Which run is next: one that has no outcome yet, and that no other process holds."""

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

#: Seconds between two looks at runs that other processes hold.
POLL_SECONDS = 1.0


class Queue:
    """The runs that are still to do, in their order; those that others hold are looked at again."""

    def __init__(self, todo: Sequence[RunSpec], store: Store, claims: Claims, again: Again) -> None:
        self._next, self._held = deque(todo), deque[RunSpec]()
        self._looked = -math.inf
        self._store, self._claims, self._again = store, claims, again
        there = ended(store.folder, [run.run_id for run in todo])
        self._before = {
            run_id: status
            for run_id, status in there.items()
            if Status(status["status"]).is_missing
        }  # what is done anew

    def __len__(self) -> int:
        return len(self._next) + len(self._held)

    def take(self) -> tuple[RunSpec, Claim] | None:
        """The next run, claimed; None where there is none, or others hold all that are left.

        Raises OSError where nothing can be written.
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
            clock_of(self._store.runs)  # a client of NFS looks anew where it has changed something
            if self._is_settled(run):  # between the look and the claim
                self._claims.release(claim)
                continue
            return run, claim
        return None

    def ended(self, run: RunSpec, claim: Claim) -> None:
        """Let the run go; it waits again where the policy tries it once more, or it was lost."""
        self._claims.release(claim)
        if not self._is_settled(run):
            self._next.append(run)

    def holders(self) -> tuple[Claim, ...]:
        """Who holds what is left."""
        waiting = {run.run_id for run in (*self._next, *self._held)}
        return tuple(c for c in living(self._store.folder) if c.run_id in waiting)

    def _is_settled(self, run: RunSpec) -> bool:
        """Whether the run has ended since this process began, and is not to be tried again."""
        status = self._store.status(run.run_id)
        if status is None or status == self._before.get(run.run_id):
            return False
        return not self._again.wants(status, once=False)

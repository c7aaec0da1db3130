"""Which run is next: one that has no outcome yet, and that no other process holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from bdhf.experiments.claims import Claim, Claims, living
from bdhf.experiments.retry import Again
from bdhf.experiments.runspec import RunSpec
from bdhf.experiments.store import Store


class Queue:
    """The runs that are still to do, in their order; those that others hold are looked at again."""

    def __init__(self, todo: Sequence[RunSpec], store: Store, claims: Claims, again: Again) -> None:
        self._waiting = deque(todo)
        self._store, self._claims, self._again = store, claims, again
        self._before = {run.run_id: store.status(run.run_id) for run in todo}  # what is done anew
        self._held: dict[str, Claim] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> tuple[RunSpec, Claim] | None:
        """The next run, claimed; None where there is none, or others hold all that are left."""
        for _ in range(len(self._waiting)):
            run = self._waiting.popleft()
            if self._is_settled(run):
                continue
            claim = self._claims.take(run.run_id)
            if claim is None:
                self._waiting.append(run)
                continue
            if self._is_settled(run):  # between the look and the claim
                self._claims.release(claim)
                continue
            return run, claim
        return None

    def ended(self, run: RunSpec, claim: Claim) -> None:
        """Let the run go; it waits again where the policy tries it once more."""
        self._claims.release(claim)
        if not self._is_settled(run):
            self._waiting.append(run)

    def holders(self) -> tuple[Claim, ...]:
        """Who holds what is left."""
        waiting = {run.run_id for run in self._waiting}
        return tuple(c for c in living(self._store.folder) if c.run_id in waiting)

    def _is_settled(self, run: RunSpec) -> bool:
        """Whether the run has ended since this process began, and is not to be tried again."""
        status: dict[str, Any] | None = self._store.status(run.run_id)
        if status is None or status == self._before[run.run_id]:
            return False
        return not self._again.wants(status, once=False)

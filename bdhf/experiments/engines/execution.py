"""A run from its spec to its folder: executed, saved on a signal to end, and written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from bdhf.experiments.engines.ending import Ending
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.plan.user_code import own_code
from bdhf.experiments.run.checkpoint import Checkpoint
from bdhf.experiments.run.execute import Outcome, execute
from bdhf.experiments.run.provenance import run_environment
from bdhf.experiments.run.training import Row
from bdhf.experiments.spec.schema import CHECKPOINT_SECONDS, Safety
from bdhf.experiments.storage.store import Store


def now() -> str:
    """The present time, in the format of status.json."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Execution:
    """A run that executes on a device for a store, from now on."""

    run: RunSpec
    store: Store
    device: str
    safety: Safety
    started: str = field(default_factory=now)
    _begun: float = field(default_factory=time.monotonic)

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Where the run is saved, and how often; None: never."""
        if self.safety.checkpoint_every is None:
            return None
        path = self.store.checkpoints / f"{self.run.run_id}.pt"
        return Checkpoint(path, self.safety.checkpoint_every, CHECKPOINT_SECONDS)

    def make(
        self,
        ending: Ending,
        *,
        observe: Callable[[Row], None],
        note: Callable[[str], None],
        again: Callable[[Row], None] = lambda row: None,
    ) -> Outcome:
        """Train as `execute` does; from its first row on, a signal to end saves the run.

        Raises Interrupted then.
        """
        checkpoint = self.checkpoint

        def observed(row: Row) -> None:
            ending.can_wait = checkpoint is not None
            observe(row)

        return execute(
            self.run,
            device=self.device,
            safety=self.safety,
            observe=observed,
            again=again,
            checkpoint=checkpoint,
            note=note,
            asked=lambda: ending.is_asked,
        )

    def write(self, outcome: Outcome, **more: Any) -> None:
        """Record an outcome, with more keys of the environment, and discard the checkpoint.

        Raises StorageError, and OSError if the checkpoint cannot be removed.
        """
        env = run_environment(self.device, self.run.threads) | more | own_code(self.run)
        wall = round(time.monotonic() - self._begun, 3)
        times = {"started": self.started, "finished": now(), "wall_seconds": wall}
        self.store.write(self.run, outcome, env, times)
        self.discard()

    def discard(self) -> None:
        """Remove the checkpoint, if there is one. Raises OSError when that fails."""
        if self.checkpoint is not None:
            self.checkpoint.discard()

"""Checkpoints: when a run saves itself, and whether one that goes on from there would be it."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.run.checkpoint_file import header, parsed, read, serialised
from bdhf.experiments.run.failures import release
from bdhf.experiments.run.object_state import ObjectState, unlike
from bdhf.experiments.run.unsaved import Unsaved
from bdhf.records import in_brief, of_what_kind, write_atomically

RunState = dict[str, Any]  # tensors, numbers, strings, and lists and mappings of them


@dataclass(frozen=True)
class Checkpoint:
    """Where a run saves itself, and how often: after `every` evaluations at the most.

    No sooner than `at_least_seconds` of wall-clock after the last time or the beginning, so that
    a short run never does. The caller of `execute` discards the file once the outcome is recorded.
    """

    path: Path
    every: int
    at_least_seconds: float

    def discard(self) -> None:
        """Remove the file, if there is one. Raises OSError when that fails."""
        self.path.unlink(missing_ok=True)


class Interrupted(BaseException):
    """A run was asked to end, and has saved itself where it can; no outcome of it."""


class Resumable(Protocol):
    """A run that can be saved between two updates, as `Training` is."""

    update: int  # updates made so far

    def step(self) -> None:
        """Make one update."""

    def state(self) -> RunState:
        """What it goes on from."""

    def shared(self) -> ObjectState:
        """What it holds that one built anew in this process would have in common with it."""

    def kept(self) -> ObjectState:
        """What it holds beside, saved or not."""

    def unsaved(self) -> ObjectState:
        """What of this is not saved."""

    def replay(self, state: RunState) -> ObjectState:
        """What `kept` is after one update by another run that goes on from a state."""


class Saver:
    """Reads and writes the checkpoint of one run; without a checkpoint it does neither.

    The first one, and one before which something else has changed than what is saved, is held back
    until a run that went on from it has made the same update, bit for bit. `refused` says why none
    is written any more. `tell` is given a line about that, and `asked` says after every update
    whether the run shall save itself and end.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        spec: RunSpec,
        device: str,
        *,
        tell: Callable[[str], None] = lambda line: None,
        asked: Callable[[], bool] = lambda: False,
    ) -> None:
        self._checkpoint, self._tell, self._asked = checkpoint, tell, asked
        self._header = header(spec, device) if checkpoint else {}
        self._evaluations, self._last, self._has_warned = 0, time.monotonic(), False
        self._shared: ObjectState | None = None
        self._trial: _Trial | None = None
        self._unsaved, self._is_there, self.refused = Unsaved(), False, ""

    def load(self) -> RunState | None:
        """Give the state that was saved, on the CPU; None where there is none to go on from."""
        if self._checkpoint is None:
            return None
        try:
            content = read(self._checkpoint.path)
            state: RunState = content.pop("state")
        except Exception:  # none is there, or a torn one, which may fail in any way
            return None
        self._is_there = content == self._header
        return state if self._is_there else None

    def resumed(self, run: Resumable) -> None:
        """The run stands where it was saved, by a checkpoint that was tried."""
        self._unsaved.proven(run.unsaved())

    def updated(self, run: Resumable) -> None:
        """Hold the run, which has just made an update, against the one that made it on trial."""
        if self._trial is None or self._checkpoint is None:
            return
        trial, self._trial = self._trial, None
        differs = unlike(run.kept(), trial.kept)
        if differs:
            self._refuse(f"a run that went on from one would not be this one: {differs}")
            return
        self._unsaved.proven(trial.unsaved)
        self._write(self._checkpoint.path, trial.content)

    def offer(self, run: Resumable, *, evaluated: bool) -> None:
        """Save the run if it is time to, as it is between two updates.

        A run that cannot be saved goes on, and says so once. Raises Interrupted when it was asked
        to end.
        """
        self._evaluations += evaluated
        is_asked = self._asked()
        if self._checkpoint is not None and not self.refused:
            if self._shared is None and (evaluated or run.update == 1):
                self._shared = run.shared()
            if is_asked or self._is_due(self._checkpoint, run):
                self._save(run, self._checkpoint.path)
            if is_asked and self._trial:
                run.step()  # forgotten with the run, which goes on from before it
                self.updated(run)
        if is_asked:
            raise Interrupted

    def _save(self, run: Resumable, path: Path) -> None:
        """Write the run as it is; if none was written before, after a trial of it."""
        self._evaluations, self._last = 0, time.monotonic()
        differs = "" if self._shared is None else unlike(run.shared(), self._shared)
        if differs:
            self._refuse(f"they do not hold what has changed since the first update: {differs}")
            return
        try:
            content = serialised({**self._header, "state": run.state()})
        except Exception as error:  # no memory, or a user's state that cannot be saved
            self._warn(path, error)
            return
        unsaved = run.unsaved()
        if self._unsaved.then is not None and not self._unsaved.changed(unsaved):
            self._write(path, content)
            return
        self._try(run, content, unsaved)
        self._shared = run.shared()  # what was built anew may have changed it

    def _try(self, run: Resumable, content: bytes, unsaved: ObjectState) -> None:
        """Make an update from what would be written."""
        try:
            state = parsed(content)["state"]
        except pickle.UnpicklingError:
            self._refuse("model or optimizer save more than tensors, numbers, texts and lists")
            return
        try:
            self._trial = _Trial(content, run.replay(state), unsaved)
        except Exception as error:  # a user's code, or no memory for a second model
            self._refuse(f"a run that went on from one would fail: {of_what_kind(error)}")
            release(error)

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_atomically(path, content)
            self._is_there = True
        except Exception as error:  # no disk, or no right to write there
            self._warn(path, error)

    def _warn(self, path: Path, error: Exception) -> None:
        if not self._has_warned:
            why = in_brief(error.__cause__ or error)  # what the system said
            self._tell(
                f"{path}: no checkpoint was written ({why}); the run continues, and starts again "
                "if it is killed"
            )
        self._has_warned = True

    def _refuse(self, why: str) -> None:
        self.refused = why
        more, where = ("more ", "from the last one") if self._is_there else ("", "again")
        self._tell(
            f"no {more}checkpoints: {why}; the run continues, and starts {where} if it is "
            "interrupted"
        )

    def _is_due(self, checkpoint: Checkpoint, run: Resumable) -> bool:
        """A trial takes two updates: after one, what counts them stands where it would anew."""
        waited = time.monotonic() - self._last
        is_time = self._evaluations >= checkpoint.every and waited >= checkpoint.at_least_seconds
        return is_time and run.update > 1


@dataclass(frozen=True)
class _Trial:
    """A checkpoint that is not written yet, and what a run holds one update after it."""

    content: bytes
    kept: ObjectState
    unsaved: ObjectState  # when it would have been written

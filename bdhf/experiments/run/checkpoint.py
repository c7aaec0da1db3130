"""Checkpoints: when a run is saved, and whether a run resumed from there would be the same."""

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
    """Where a run is saved, and how often: after `every` evaluations.

    At least `at_least_seconds` of wall-clock lie between two saves, and before the first one, so a
    short run is never saved. The caller of `execute` discards the file after it has recorded the
    outcome.
    """

    path: Path
    every: int
    at_least_seconds: float

    def discard(self) -> None:
        """Remove the file, if there is one. Raises OSError when that fails."""
        self.path.unlink(missing_ok=True)


class Interrupted(BaseException):
    """A run was asked to end, and was saved if possible; it has no outcome."""


class Resumable(Protocol):
    """A run that can be saved between two updates, as `Training` is."""

    update: int  # updates made so far

    def step(self) -> None:
        """Make one update."""

    def state(self) -> RunState:
        """What it resumes from."""

    def shared(self) -> ObjectState:
        """What it shares with a second build of the run in this process."""

    def kept(self) -> ObjectState:
        """Everything else that it holds, saved or not."""

    def unsaved(self) -> ObjectState:
        """The part of `kept` that is not saved."""

    def replay(self, state: RunState) -> ObjectState:
        """The `kept` of a second run after one update from a state."""


class Saver:
    """Reads and writes the checkpoint of one run; without a checkpoint it does neither.

    The first checkpoint, and each one before which unsaved state has changed, is written only after
    a run resumed from it has made the same update, bit for bit. `refused` is the reason why none is
    written any more, and `note` receives a line about it. `asked` is read after every update:
    whether to save the run and end it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        spec: RunSpec,
        device: str,
        *,
        note: Callable[[str], None] = lambda line: None,
        asked: Callable[[], bool] = lambda: False,
    ) -> None:
        self._checkpoint, self._note, self._asked = checkpoint, note, asked
        self._header = header(spec, device) if checkpoint else {}
        self._evaluations, self._last, self._has_warned = 0, time.monotonic(), False
        self._shared: ObjectState | None = None
        self._trial: _Trial | None = None
        self._unsaved, self._is_there, self.refused = Unsaved(), False, ""

    def load(self) -> RunState | None:
        """The saved state, on the CPU; None if there is none to resume from."""
        if self._checkpoint is None:
            return None
        try:
            content = read(self._checkpoint.path)
            state: RunState = content.pop("state")
        except Exception:  # no file, or a torn one, which may fail in any way
            return None
        self._is_there = content == self._header
        return state if self._is_there else None

    def resumed(self, run: Resumable) -> None:
        """Note that the run was resumed from a checkpoint, which was tested before it was saved."""
        self._unsaved.proven(run.unsaved())

    def updated(self, run: Resumable) -> None:
        """Compare the run, which has just made an update, with the trial of that update."""
        if self._trial is None or self._checkpoint is None:
            return
        trial, self._trial = self._trial, None
        differs = unlike(run.kept(), trial.kept)
        if differs:
            self._refuse(f"a run resumed from one would differ: {differs}")
            return
        self._unsaved.proven(trial.unsaved)
        self._write(self._checkpoint.path, trial.content)

    def offer(self, run: Resumable, *, evaluated: bool) -> None:
        """Save the run between two updates if a save is due.

        A run that cannot be saved continues, with one message. Raises Interrupted if the run was
        asked to end.
        """
        self._evaluations += evaluated
        is_asked = self._asked()
        if self._checkpoint is not None and not self.refused:
            if self._shared is None and (evaluated or run.update == 1):
                self._shared = run.shared()
            if is_asked or self._is_due(self._checkpoint, run):
                self._save(run, self._checkpoint.path)
            if is_asked and self._trial:
                run.step()  # dropped with the run, which resumes from before it
                self.updated(run)
        if is_asked:
            raise Interrupted

    def _save(self, run: Resumable, path: Path) -> None:
        """Write the run as it is; the first checkpoint only after a trial."""
        self._evaluations, self._last = 0, time.monotonic()
        differs = "" if self._shared is None else unlike(run.shared(), self._shared)
        if differs:
            self._refuse(f"they do not hold state that has changed since update 1: {differs}")
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
        self._shared = run.shared()  # the second build may have changed it

    def _try(self, run: Resumable, content: bytes, unsaved: ObjectState) -> None:
        """Make an update from the content that would be written."""
        try:
            state = parsed(content)["state"]
        except pickle.UnpicklingError:
            self._refuse("model or optimizer save more than tensors, numbers, strings and lists")
            return
        try:
            self._trial = _Trial(content, run.replay(state), unsaved)
        except Exception as error:  # a user's code, or no memory for a second model
            self._refuse(f"a run resumed from one would fail: {of_what_kind(error)}")
            release(error)

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_atomically(path, content)
            self._is_there = True
        except Exception as error:  # no disk, or no right to write there
            self._warn(path, error)

    def _warn(self, path: Path, error: Exception) -> None:
        if not self._has_warned:
            why = in_brief(error.__cause__ or error)  # the error of the system
            self._note(
                f"{path}: no checkpoint was written ({why}); the run continues, and starts again "
                "from update 0 if it is killed"
            )
        self._has_warned = True

    def _refuse(self, why: str) -> None:
        self.refused = why
        more, where = ("more ", "the last one") if self._is_there else ("", "update 0")
        self._note(
            f"no {more}checkpoints: {why}; the run continues, and restarts from {where} if it is "
            "interrupted"
        )

    def _is_due(self, checkpoint: Checkpoint, run: Resumable) -> bool:
        """Not after one update: counters of a second build would then agree with any state."""
        waited = time.monotonic() - self._last
        is_time = self._evaluations >= checkpoint.every and waited >= checkpoint.at_least_seconds
        return is_time and run.update > 1


@dataclass(frozen=True)
class _Trial:
    """A checkpoint that is not written yet, and the state of a run one update after it."""

    content: bytes
    kept: ObjectState
    unsaved: ObjectState  # when it would have been written

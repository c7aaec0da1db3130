"""Checkpoints: one file that a killed run goes on from, which exists whole or not at all.

    {"format": 1, "run": "<run id>", "torch": "2.13.0", ..., "state": what the run gave}

A file that is torn, or of another run, machine, version or code of a user's own, is ignored: no
bits of it would fit.
"""

from __future__ import annotations

import io
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bdhf.experiments.own_source import own_code
from bdhf.experiments.provenance import environment
from bdhf.experiments.runspec import RunSpec
from bdhf.records import in_brief, write_atomically

State = dict[str, Any]  # tensors, numbers, strings, and lists and mappings of them

#: Raised when what a run saves changes.
FORMAT = 1


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


class Saver:
    """Reads and writes the checkpoint of one run; without a checkpoint it does neither."""

    def __init__(self, checkpoint: Checkpoint | None, spec: RunSpec, device: str) -> None:
        self._checkpoint = checkpoint
        self._header = _header(spec, device) if checkpoint else {}
        self._evaluations, self._last, self._warned = 0, time.monotonic(), False

    def load(self) -> State | None:
        """Give the state that was saved, on the CPU; None where there is none to go on from."""
        if self._checkpoint is None:
            return None
        try:
            found = _read(self._checkpoint.path)
            state: State = found.pop("state")
        except Exception:  # none is there, or a torn one, which may fail in any way
            return None
        return state if found == self._header else None

    def offer(self, state: Callable[[], State]) -> None:
        """Count an evaluation; save what `state` gives if it is time to.

        A run that cannot be saved goes on, and warns once.
        """
        self._evaluations += 1
        if self._checkpoint is None or not self._is_due(self._checkpoint):
            return
        try:
            _write(self._checkpoint.path, {**self._header, "state": state()})
        except Exception as error:  # no disk, no memory, or a user's state that cannot be saved
            if not self._warned:
                why = in_brief(error.__cause__ or error)  # what the system said
                warnings.warn(
                    f"{self._checkpoint.path}: no checkpoint was written ({why}); the run goes on, "
                    "and begins anew if it is killed",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._warned = True
        self._evaluations, self._last = 0, time.monotonic()

    def _is_due(self, checkpoint: Checkpoint) -> bool:
        waited = time.monotonic() - self._last
        return self._evaluations >= checkpoint.every and waited >= checkpoint.at_least_seconds


def _header(spec: RunSpec, device: str) -> Mapping[str, Any]:
    """What must agree for a run to go on with the same bits, and its seconds on one machine."""
    machine = environment(device, spec.threads)
    where = {key: str(machine[key]) for key in ("torch", "cpu", "gpu")}
    where |= own_code(spec)
    return {"format": FORMAT, "run": spec.run_id, "device": torch.device(device).type, **where}


def _read(path: Path) -> dict[str, Any]:
    """Read a file. Raises whatever is wrong with one that is not whole."""
    with zipfile.ZipFile(path) as archive:  # torch itself does not look at the checksums
        if (torn := archive.testzip()) is not None:
            raise zipfile.BadZipFile(torn)
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return found


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that exists whole or not at all. Raises OSError."""
    whole = io.BytesIO()
    torch.save(content, whole)  # in memory first: on a full disk torch raises something else
    write_atomically(path, whole.getvalue())

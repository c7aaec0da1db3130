"""Runs that were made with other code of a user's own parts than that which lies there now.

The code is no part of a run's id. So env.json says which code a run was made with, and whoever
runs an ablation decides what becomes of runs whose code has changed since.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bdhf.experiments.parts.user_source import Hashes, ModuleSource, sources
from bdhf.experiments.plan.expand import Cell
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.plan.user_code import own_names
from bdhf.experiments.storage.claims import Claims
from bdhf.experiments.storage.store import Store
from bdhf.records import InputError
from bdhf.records.disk.files import UNREADABLE
from bdhf.records.disk.version import read_record
from bdhf.records.provenance.environment import hashes_of_words


@dataclass(frozen=True)
class Stale:
    """The runs of one arm that were made with other code of its own parts."""

    arm: str  # its label
    parts: tuple[str, ...]  # own parts, as the spec names them
    files: tuple[str, ...]  # that have changed, come or gone since; a module where its file is gone
    run_ids: tuple[str, ...]


class Present:
    """The code of own parts as it lies there now; every part is looked at once."""

    def __init__(self) -> None:
        self._of = cache(sources)

    def changed(self, recorded: Hashes, names: Iterable[str]) -> dict[str, str]:
        """Module -> its file, or its name where it is gone: those that are not as recorded."""
        now: dict[str, ModuleSource] = {}
        for name in names:
            now |= self._of(name)
        return {
            module: str(now[module].file) if module in now else f"{module} (gone)"
            for module in sorted({*now, *recorded})
            if module not in now or now[module].digest != recorded.get(module)
        }

    def parts_of(self, names: Sequence[str], modules: AbstractSet[str]) -> list[str]:
        """Which own parts have one of these modules; all of them, where none has one now."""
        having = [name for name in names if not modules.isdisjoint(self._of(name))]
        return having or list(names)


def stale(folder: Path, cells: Sequence[Cell], left: Collection[str]) -> tuple[Stale, ...]:
    """By arm, the runs of these cells that are not left to do and were made with other code.

    A run that does not say which code it was made with is none of them.
    """
    present, by_arm = Present(), dict[str, list[tuple[str, list[str], Mapping[str, str]]]]()
    for cell in cells:
        names = own_names(cell.run)
        if cell.skip or cell.run_id in left or not names:
            continue
        recorded = _recorded(folder, cell.run_id)
        changed = present.changed(recorded, names) if recorded else {}
        if changed:
            parts = present.parts_of(names, changed.keys())
            by_arm.setdefault(cell.arm, []).append((cell.run_id, parts, changed))
    return tuple(
        Stale(
            arm=arm,
            parts=tuple(dict.fromkeys(part for _, parts, _ in runs for part in parts)),
            files=tuple(dict.fromkeys(f for _, _, files in runs for f in files.values())),
            run_ids=tuple(dict.fromkeys(run_id for run_id, _, _ in runs)),
        )
        for arm, runs in by_arm.items()
    )


def is_stale(folder: Path, run: RunSpec) -> bool:
    """Whether a run lies there that was made with other code than there is now."""
    names = own_names(run)
    recorded = _recorded(folder, run.run_id) if names else {}
    return bool(recorded and Present().changed(recorded, names))


def set_aside(store: Store, runs: Iterable[RunSpec]) -> list[str]:
    """Move those of these runs that are stale, and that no one is making, out of the way.

    They are kept as `stale/<run id>.1`, `.2` and so on. Returns their ids. Raises OSError.
    """
    claims, moved = Claims(store.folder), list[str]()
    try:
        for run in runs:
            claim = claims.take(run.run_id)
            if claim is None:
                continue
            if is_stale(store.folder, run):  # no other process has made it again between
                _move(store.runs / run.run_id, store.aside)
                moved.append(run.run_id)
            claims.release(claim)
    finally:
        claims.close()
    return moved


def _recorded(folder: Path, run_id: str) -> dict[str, str]:
    """The code that a run was made with; nothing where that is not known."""
    content: dict[str, Any] = {}
    with suppress(InputError, *UNREADABLE):
        content = read_record(folder / "runs" / run_id / "env.json")
    recorded = content.get("own_code")
    return hashes_of_words(recorded) if isinstance(recorded, str) else {}


def _move(run: Path, aside: Path) -> None:
    """Rename a run's folder to the first name that is free."""
    aside.mkdir(exist_ok=True)
    for number in itertools.count(1):
        there = aside / f"{run.name}.{number}"
        if not os.path.lexists(there):
            run.rename(there)
            return

"""Stale runs: made with other code of own parts than the present code.

The code is no part of a run's id. So env.json records the code of a run, and the user decides about
runs whose code has changed since.
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
    """The stale runs of one arm."""

    arm: str  # its label
    parts: tuple[str, ...]  # own parts, as the spec names them
    files: tuple[str, ...]  # changed, added or removed since; of a removed file its module
    run_ids: tuple[str, ...]


class Present:
    """The present code of own parts; every part is read once."""

    def __init__(self) -> None:
        self._of = cache(sources)

    def changed(self, recorded: Hashes, names: Iterable[str]) -> dict[str, str]:
        """Each module that is not as recorded -> its file, or its name if the file is gone."""
        now: dict[str, ModuleSource] = {}
        for name in names:
            now |= self._of(name)
        return {
            module: str(now[module].file) if module in now else f"{module} (gone)"
            for module in sorted({*now, *recorded})
            if module not in now or now[module].digest != recorded.get(module)
        }

    def parts_of(self, names: Sequence[str], modules: AbstractSet[str]) -> list[str]:
        """The own parts that have one of these modules; all of them if none has one now."""
        having = [name for name in names if not modules.isdisjoint(self._of(name))]
        return having or list(names)


def stale(folder: Path, cells: Sequence[Cell], left: Collection[str]) -> tuple[Stale, ...]:
    """The stale runs of these cells that are not left to do, by arm.

    A run without a record of its code is not stale.
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
    """Whether there is a run that was made with other code than the present one."""
    names = own_names(run)
    recorded = _recorded(folder, run.run_id) if names else {}
    return bool(recorded and Present().changed(recorded, names))


def set_aside(store: Store, runs: Iterable[RunSpec]) -> list[str]:
    """Move those of these runs that are stale, and that no process holds, to `stale/`.

    Their names there are `<run id>.1`, `.2` and so on. Returns their ids. Raises OSError.
    """
    claims, moved = Claims(store.folder), list[str]()
    try:
        for run in runs:
            claim = claims.take(run.run_id)
            if claim is None:
                continue
            if is_stale(store.folder, run):  # another process may have repeated it meanwhile
                _move(store.runs / run.run_id, store.aside)
                moved.append(run.run_id)
            claims.release(claim)
    finally:
        claims.close()
    return moved


def _recorded(folder: Path, run_id: str) -> dict[str, str]:
    """The recorded code of a run; {} if it is unknown."""
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

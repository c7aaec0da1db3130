"""The code of a run's own parts: their names, and the hashes of their modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bdhf.experiments.parts.user_source import at_import
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.records.provenance.environment import hashes_in_words


def own_names(run: RunSpec) -> tuple[str, ...]:
    """The `package.module:name` of every own part of a run, in alphabetical order."""
    return tuple(sorted({*_named_in(run.problem), *_named_in(run.optimizer)}))


def own_code(run: RunSpec) -> dict[str, str]:
    """The entry of env.json on the code of a run's own parts; empty without own parts.

    It is the code that this process has imported or will import; the files may have changed since.
    """
    hashes: dict[str, str] = {}
    for name in own_names(run):
        hashes |= at_import(name.partition(":")[0])
    return {"own_code": hashes_in_words(hashes)} if hashes else {}


def _named_in(part: Any) -> Iterator[str]:
    """The types of a resolved part, and of the parts in it, that are a user's own."""
    if isinstance(part, dict):
        if isinstance(part.get("type"), str) and ":" in part["type"]:
            yield part["type"]
        for inner in part.values():
            yield from _named_in(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _named_in(inner)

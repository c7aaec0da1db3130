"""From a YAML file to a spec that is checked and complete, before anything is run or written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bdhf.experiments.checker import Checker
from bdhf.experiments.compose import read
from bdhf.experiments.consistency import consistency_of_all
from bdhf.experiments.errors import Fault
from bdhf.experiments.exclude import Exclusion, exclusions, idle, left_out
from bdhf.experiments.grid import Combination, LeftOut, Variant, applied, combinations, traced
from bdhf.experiments.own import look_beside
from bdhf.experiments.parts import Faults
from bdhf.experiments.schema import Spec
from bdhf.experiments.source import Source

T = TypeVar("T")
NO_GRID: tuple[Combination, ...] = ((),)
NO_EXCLUSIONS: tuple[Exclusion, ...] = ()


def load(file: Path, settings: Sequence[str] = ()) -> tuple[tuple[Variant, ...], Source]:
    """Read, check and resolve a spec file, with `path=value` settings on top of it.

    Raises SpecError with a line for every fault.
    """
    source = read(file, settings)
    look_beside(file)
    return variants(source), source


def check(source: Source) -> Spec:
    """Check and resolve a parsed spec; of a grid, its first combination. Raises SpecError."""
    return variants(source)[0].spec


def variants(source: Source) -> tuple[Variant, ...]:
    """Check and resolve a parsed spec with every combination of its grid; without a grid, one.

    Raises SpecError with a line for every fault.
    """
    if not isinstance(source.data, dict):
        raise source.error([Fault((), "a spec is a mapping of keys; start with `schema: 1`")])
    every, wrong_grid = _or_faults(combinations, source.data, NO_GRID)
    entries, wrong_entries = _or_faults(exclusions, source.data, NO_EXCLUSIONS)
    faults, checker = [*wrong_grid, *wrong_entries], Checker()
    arms = source.data["arms"] if isinstance(source.data.get("arms"), dict) else {}
    checked, excluded = list[Variant](), list[Mapping[str, Sequence[Exclusion]]]()
    for picks in every:
        try:
            data = applied(source.data, picks)
            excluded.append(left_out(entries, arms, picks, data))
            checked.append(Variant(picks, checker.check(data), _left_out(excluded[-1], picks)))
        except Faults as found:
            faults += [traced(fault, picks) for fault in found.faults]
    if entries and not faults:
        faults += idle(entries, list(arms), excluded)
    faults = faults or consistency_of_all(checked)
    if faults or source.faults:
        raise source.error(faults)
    return tuple(checked)


def _or_faults(
    found_in: Callable[[Mapping[str, Any]], T], data: Mapping[str, Any], without: T
) -> tuple[T, Sequence[Fault]]:
    """What is found in the data; or what stands for it, and why it is not."""
    try:
        return found_in(data), ()
    except Faults as found:
        return without, found.faults


def _left_out(found: Mapping[str, Sequence[Exclusion]], picks: Combination) -> dict[str, LeftOut]:
    """By arm, why it is left out, and the axes that the entries speak of."""
    return {
        arm: LeftOut(
            entries[0].words,
            frozenset(p.axis for p in picks if any(entry.is_about(p.target) for entry in entries)),
        )
        for arm, entries in found.items()
    }

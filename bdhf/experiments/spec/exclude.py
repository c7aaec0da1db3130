"""Cells that a spec excludes from its grid: `exclude: [{arm: adam, batch.curvature: [125, 250]}]`.

An entry names arms, values on dotted paths, or both, and excludes every cell that matches all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bdhf.experiments.errors import Fault, Faults, Keys, unknown
from bdhf.experiments.spec.dotted_paths import keys_of, value_at
from bdhf.experiments.spec.grid import Combination
from bdhf.experiments.spec.value_words import exactly

#: For every path: its text, its keys, and the values of which a combination must have one.
ExcludedValues = tuple[tuple[str, Keys, tuple[Any, ...]], ...]


@dataclass(frozen=True)
class Exclusion:
    """One entry: arms, and values on paths; without arms, or without values, it matches all."""

    words: str  # for readers: `adam, batch.curvature 125 or 250`
    arms: frozenset[str]
    values: ExcludedValues
    path: Keys

    def is_about(self, target: Keys) -> bool:
        """Whether it names a value at the target, in it, or around it."""
        return any(
            keys[: len(target)] == target or target[: len(keys)] == keys
            for _, keys, _ in self.values
        )

    def covers(self, arm: str, picks: Combination, data: Mapping[str, Any]) -> bool:
        """Whether it excludes an arm in a combination; `data`: the unchecked spec with it."""
        return (not self.arms or arm in self.arms) and has_all(self.values, picks, data)


def has_all(values: ExcludedValues, picks: Combination, data: Mapping[str, Any]) -> bool:
    """Whether a combination has one of the values on every path; `data`: the spec with it."""
    return all(
        any(_is(wanted, path, keys, picks, data) for wanted in listed)
        for path, keys, listed in values
    )


def values_at(entry: Mapping[str, Any], data: Mapping[str, Any], at: Keys) -> ExcludedValues:
    """Parse dotted paths with a value or a list of values each. Raises Faults."""
    values, faults = list[tuple[str, Keys, tuple[Any, ...]]](), list[Fault]()
    for path, listed in entry.items():
        try:
            keys = keys_of(path, data, (*at, path))
        except Faults as wrong:
            faults += wrong.faults
            continue
        values.append((path, keys, tuple(listed) if isinstance(listed, list) else (listed,)))
    if faults:
        raise Faults(*faults)
    return tuple(values)


def values_in_words(values: ExcludedValues) -> str:
    """Values on paths, for readers: `batch.curvature 125 or 250`."""
    return ", ".join(f"{path} {' or '.join(map(_in_words, listed))}" for path, _, listed in values)


def exclusions(data: Mapping[str, Any]) -> tuple[Exclusion, ...]:
    """Every entry of `exclude`. Raises Faults for an entry with an unknown name."""
    entries = data.get("exclude", [])
    if not isinstance(entries, list):
        raise Faults(Fault(("exclude",), f"give a list of mappings; got {entries!r}"))
    parsed, faults = list[Exclusion](), list[Fault]()
    for index, entry in enumerate(entries):
        try:
            parsed.append(_exclusion(entry, data, ("exclude", index)))
        except Faults as wrong:
            faults += wrong.faults
    if faults:
        raise Faults(*faults)
    return tuple(parsed)


def entries_leaving_out(
    entries: Sequence[Exclusion], arms: Iterable[str], picks: Combination, data: Mapping[str, Any]
) -> dict[str, tuple[Exclusion, ...]]:
    """Arm -> the entries that exclude it from a combination; `data`: the spec with that."""
    covering = {
        arm: tuple(entry for entry in entries if entry.covers(arm, picks, data))
        for arm in (arms if entries else ())
    }
    return {arm: excluding for arm, excluding in covering.items() if excluding}


def idle_exclusions(
    entries: Sequence[Exclusion],
    arms: Sequence[str],
    combinations: Sequence[Mapping[str, Sequence[Exclusion]]],
) -> list[Fault]:
    """Faults of entries that exclude nothing, and of arms that lose every cell."""
    used = {entry.path for excluded in combinations for left in excluded.values() for entry in left}
    faults = [
        Fault(entry.path, f"excludes nothing: no cell has {entry.words}")
        for entry in entries
        if entry.path not in used
    ]
    faults += [
        Fault(
            ("exclude",),
            f"excludes every cell of arm {arm!r}: remove the arm from `arms`",
            at_key=True,
        )
        for arm in arms
        if all(arm in excluded for excluded in combinations)
    ]
    return faults


def _exclusion(entry: Any, data: Mapping[str, Any], path: Keys) -> Exclusion:
    """One entry. Raises Faults."""
    if not isinstance(entry, dict) or not entry:
        message = f"give `arm`, dotted paths with the values to exclude, or both; got {entry!r}"
        raise Faults(Fault(path, message))
    named = entry.get("arm", [])
    arms = named if isinstance(named, list) else [named]
    defined = data["arms"] if isinstance(data.get("arms"), dict) else {}
    faults = [
        Fault((*path, "arm"), unknown("arm", arm, defined))
        for arm in arms
        if not isinstance(arm, str) or arm not in defined
    ]
    values: ExcludedValues = ()
    try:
        values = values_at({k: v for k, v in entry.items() if k != "arm"}, data, path)
    except Faults as wrong:
        faults += wrong.faults
    if faults:
        raise Faults(*faults)
    words = ", ".join(filter(None, [" and ".join(arms), values_in_words(values)]))
    return Exclusion(words, frozenset(arms), values, path)


def _is(wanted: Any, path: str, keys: Keys, picks: Combination, data: Mapping[str, Any]) -> bool:
    """Whether a combination has a value on a path, by the value itself or by its short words."""
    words = [pick.words for pick in picks if pick.axis == path]
    return wanted in words or exactly(value_at(data, keys)) == exactly(wanted)


def _in_words(value: Any) -> str:
    return value if isinstance(value, str) else exactly(value)

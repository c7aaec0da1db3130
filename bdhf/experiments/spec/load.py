"""From a YAML file to a checked and complete spec, before anything is run or written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bdhf.experiments.errors import Fault, Faults
from bdhf.experiments.parts.user_modules import look_beside
from bdhf.experiments.spec import settings as in_settings
from bdhf.experiments.spec.check import Checker
from bdhf.experiments.spec.compose import read_spec
from bdhf.experiments.spec.consistency import consistency_of_all
from bdhf.experiments.spec.dotted_paths import Setting
from bdhf.experiments.spec.exclude import (
    Exclusion,
    entries_leaving_out,
    exclusions,
    idle_exclusions,
)
from bdhf.experiments.spec.grid import Combination, LeftOut, Variant, applied, combinations, traced
from bdhf.experiments.spec.schema import Spec
from bdhf.experiments.spec.settings import (
    SettingsEntry,
    moved_to_setting,
    settings_at,
    with_settings,
)
from bdhf.experiments.spec.yaml_source import Source

_T = TypeVar("_T")
_NO_GRID: tuple[Combination, ...] = ((),)
_NO_EXCLUSIONS: tuple[Exclusion, ...] = ()
_NO_SETTINGS: tuple[SettingsEntry, ...] = ()


def load_spec(file: Path, settings: Sequence[str] = ()) -> tuple[tuple[Variant, ...], Source]:
    """Read, check and resolve a spec file, with `path=value` settings on top of it.

    Raises SpecError with a line for every fault.
    """
    source = read_spec(file, settings)
    look_beside(file)
    return variants(source), source


def check_spec(source: Source) -> Spec:
    """Check and resolve a parsed spec; with a grid, its first combination. Raises SpecError."""
    return variants(source)[0].spec


def variants(source: Source) -> tuple[Variant, ...]:
    """Check and resolve every combination of the grid of a parsed spec; without a grid, one.

    Raises SpecError with a line for every fault.
    """
    if not isinstance(source.data, dict):
        raise source.error([Fault((), "a spec is a mapping of keys; start with `schema: 1`")])
    every, wrong_grid = _or_faults(combinations, source.data, _NO_GRID)
    entries, wrong_entries = _or_faults(exclusions, source.data, _NO_EXCLUSIONS)
    settings, wrong_settings = _or_faults(in_settings.entries, source.data, _NO_SETTINGS)
    faults = [*wrong_grid, *wrong_entries, *wrong_settings]
    reader, checked = _Reader(source.data, entries, settings), list[Variant]()
    for picks in every:
        try:
            checked.append(reader.variant(picks))
        except Faults as error:
            faults += error.faults
    faults = faults or reader.idle() or consistency_of_all(checked)
    if faults or source.faults:
        raise source.error(faults)
    return tuple(checked)


class _Reader:
    """Checks the combinations of one spec, and records which entries apply to any."""

    def __init__(
        self,
        data: Mapping[str, Any],
        entries: Sequence[Exclusion],
        settings: Sequence[SettingsEntry],
    ) -> None:
        self._data, self._entries, self._settings = data, entries, settings
        self._arms = data["arms"] if isinstance(data.get("arms"), dict) else {}
        self._checker = Checker()
        self._excluded = list[Mapping[str, Sequence[Exclusion]]]()
        self._plain = list[tuple[Combination, Mapping[str, Any]]]()  # without settings

    def variant(self, picks: Combination) -> Variant:
        """Check one combination. Raises Faults, located in the file."""
        plain = applied(self._data, picks)
        self._plain.append((picks, plain))
        settings = settings_at(self._settings, picks, plain)
        data = with_settings(plain, settings)
        self._excluded.append(entries_leaving_out(self._entries, self._arms, picks, data))
        try:
            spec = self._checker.check(data)
        except Faults as error:
            raise Faults(*self._traced(error.faults, picks, settings)) from None
        return Variant(picks, spec, _left_out(self._excluded[-1], picks), settings)

    def idle(self) -> list[Fault]:
        """Faults of entries that apply to no combination, and of arms without any cell."""
        faults = in_settings.idle_settings(self._settings, self._plain)
        if self._entries:
            faults += idle_exclusions(self._entries, list(self._arms), self._excluded)
        return faults

    def _traced(
        self, faults: Sequence[Fault], picks: Combination, settings: Sequence[Setting]
    ) -> Iterator[Fault]:
        """Move faults to the setting, or to the value of the grid, that they come from."""
        before: Sequence[Fault] = ()
        if settings:
            _, before = _or_faults(self._checker.check, self._plain[-1][1], None)
        for fault in faults:
            yield moved_to_setting(fault, settings, fault not in before) or traced(fault, picks)


def _or_faults(
    read: Callable[[Mapping[str, Any]], _T], data: Mapping[str, Any], without: _T
) -> tuple[_T, Sequence[Fault]]:
    """What is read from the data, or a default with the faults."""
    try:
        return read(data), ()
    except Faults as error:
        return without, error.faults


def _left_out(
    excluded: Mapping[str, Sequence[Exclusion]], picks: Combination
) -> dict[str, LeftOut]:
    """By arm: why it is excluded, and the axes that the entries name."""
    return {
        arm: LeftOut(
            entries[0].words,
            frozenset(p.axis for p in picks if any(entry.is_about(p.target) for entry in entries)),
        )
        for arm, entries in excluded.items()
    }

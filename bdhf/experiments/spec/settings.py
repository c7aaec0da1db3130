"""Values for some combinations of a grid, such as settings tuned at one batch size.

    settings: [{at: {batch.gradient: 125}, set: {arms.adam.lr: 1.1e-3, budget.updates: 800}}]

Every combination that matches all of `at`, before any settings, gets the values of `set` before it
is checked. Later entries win. A fault in such a value is reported at its line in `settings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bdhf.experiments.errors import Fault, Faults, Keys
from bdhf.experiments.spec.dotted_paths import Setting, put, value_at
from bdhf.experiments.spec.exclude import ExcludedValues, has_all, values_at, values_in_words
from bdhf.experiments.spec.grid import Combination, target_of
from bdhf.experiments.spec.schema import CombinationSettings, keys_in


@dataclass(frozen=True)
class SettingsEntry:
    """Values on paths, for the combinations that match values on other paths."""

    at: ExcludedValues
    settings: tuple[Setting, ...]  # outer paths first
    path: Keys

    def applies(self, picks: Combination, data: Mapping[str, Any]) -> bool:
        """Whether a combination matches all of `at`; `data`: the unchecked spec with it."""
        return has_all(self.at, picks, data)


def entries(data: Mapping[str, Any]) -> tuple[SettingsEntry, ...]:
    """Every entry of `settings`. Raises Faults for an entry with an unknown name."""
    listed = data.get("settings", [])
    if not isinstance(listed, list):
        raise Faults(Fault(("settings",), f"give a list of mappings; got {listed!r}"))
    if listed and "grid" not in data:
        message = "need a `grid`; without one, write the values into the spec itself"
        raise Faults(Fault(("settings",), message, at_key=True))
    return _all(_entry, ((entry, data, ("settings", i)) for i, entry in enumerate(listed)))


def settings_at(
    entries: Sequence[SettingsEntry], picks: Combination, data: Mapping[str, Any]
) -> tuple[Setting, ...]:
    """The settings of a combination, in order; `data`: the spec with it.

    Raises Faults for a path that the grid varies: the label of an arm would show another value.
    """
    settings = [s for entry in entries if entry.applies(picks, data) for s in entry.settings]
    faults = [
        Fault(setting.path, f"the grid varies {pick.axis}: remove one of the two", at_key=True)
        for setting in settings
        for pick in picks
        if _overrides(setting, pick.target, pick.value)
    ]
    if faults:
        raise Faults(*faults)
    return tuple(settings)


def with_settings(data: Mapping[str, Any], settings: Iterable[Setting]) -> Mapping[str, Any]:
    """The data with every setting written in. Raises Faults."""
    for setting in settings:
        data = put(data, setting.keys, setting.value, setting.path)
    return data


def idle_settings(
    entries: Iterable[SettingsEntry], combinations: Sequence[tuple[Combination, Mapping[str, Any]]]
) -> list[Fault]:
    """Faults of entries that apply to no combination; each combination has its unchecked spec."""
    return [
        Fault(
            (*entry.path, "at"), f"applies to no combination: none has {values_in_words(entry.at)}"
        )
        for entry in entries
        if not any(entry.applies(picks, data) for picks, data in combinations)
    ]


def moved_to_setting(fault: Fault, settings: Sequence[Setting], is_new: bool) -> Fault | None:
    """A fault of a spec, moved to the setting that it comes from; None if there is no such setting.

    `is_new`: without the settings there is no such fault, so a setting inside of its path makes it.
    """
    for setting in reversed(settings):
        rest = fault.path[len(setting.keys) :]
        if (*setting.keys, *rest) == fault.path:
            return Fault((*setting.path, *rest), fault.message, fault.at_key)
    inside = [s for s in settings if is_new and s.keys[: len(fault.path)] == fault.path]
    return Fault(inside[-1].path, fault.message) if inside and fault.path else None


def _entry(entry: Any, data: Mapping[str, Any], entry_path: Keys) -> SettingsEntry:
    """One entry. Raises Faults."""
    keys = keys_in(CombinationSettings)
    if not isinstance(entry, dict) or entry.keys() != keys.keys():
        shape = "give `at`, dotted paths with values to match, and `set`, paths with values to set"
        raise Faults(Fault(entry_path, f"{shape}; got {entry!r}"))
    wrong = [
        Fault((*entry_path, key), f"give a mapping of dotted paths to values; got {entry[key]!r}")
        for key in keys
        if not isinstance(entry[key], dict) or not entry[key]
    ]
    if wrong:
        raise Faults(*wrong)
    put_there = (*entry_path, "set")
    settings = _all(_setting, ((p, v, data, (*put_there, p)) for p, v in entry["set"].items()))
    for path in entry["at"]:
        target_of(path, data, (*entry_path, "at", path))
    at = values_at(entry["at"], data, (*entry_path, "at"))
    return SettingsEntry(
        at, tuple(sorted(settings, key=lambda setting: len(setting.keys))), entry_path
    )


def _setting(path: str, value: Any, data: Mapping[str, Any], at: Keys) -> Setting:
    """One value of `set`. Raises Faults."""
    return Setting(target_of(path, data, at), value, at)


def _all(read: Callable[..., Any], each: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Read each. Raises the Faults of all."""
    items, faults = list[Any](), list[Fault]()
    for arguments in each:
        try:
            items.append(read(*arguments))
        except Faults as wrong:
            faults += wrong.faults
    if faults:
        raise Faults(*faults)
    return tuple(items)


def _overrides(setting: Setting, target: Keys, value: Any) -> bool:
    """Whether a setting replaces a value of the grid, contains it, or replaces a piece of it."""
    rest = setting.keys[len(target) :]
    if (*target, *rest) == setting.keys:
        return not rest or value_at(value, rest) is not None
    return target[: len(setting.keys)] == setting.keys

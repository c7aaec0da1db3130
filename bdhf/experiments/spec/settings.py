"""Values for some combinations of a grid: what is tuned at one batch size is not the best at all.

    settings: [{at: {batch.gradient: 125}, set: {arms.adam.lr: 1.1e-3, budget.updates: 800}}]

Every combination that has all values of `at`, before any setting, gets those of `set` before it is
checked: the entries one after the other, so that later ones win. What is wrong with such a value is
told where it stands in `settings`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bdhf.experiments.errors import Fault, Faults, Keys
from bdhf.experiments.spec.dotted_paths import Setting, put, value_at
from bdhf.experiments.spec.exclude import ExcludedValues, has_all, said, values_at
from bdhf.experiments.spec.grid import Combination, target_of
from bdhf.experiments.spec.schema import CombinationSettings, keys_in


@dataclass(frozen=True)
class SettingsEntry:
    """Values on paths, for the combinations that have others."""

    at: ExcludedValues
    settings: tuple[Setting, ...]  # a whole before its parts
    path: Keys

    def applies(self, picks: Combination, data: Mapping[str, Any]) -> bool:
        """Whether a combination has all values of `at`; `data` is the spec with it, unchecked."""
        return has_all(self.at, picks, data)


def entries(data: Mapping[str, Any]) -> tuple[SettingsEntry, ...]:
    """Every entry of `settings`. Raises Faults for one that names what is not there."""
    listed = data.get("settings", [])
    if not isinstance(listed, list):
        raise Faults(Fault(("settings",), f"give a list of mappings; got {listed!r}"))
    if listed and "grid" not in data:
        message = "are for combinations of a `grid`, and there is none: put the values themselves"
        raise Faults(Fault(("settings",), message, at_key=True))
    return _all(_entry, ((entry, data, ("settings", i)) for i, entry in enumerate(listed)))


def settings_at(
    entries: Sequence[SettingsEntry], picks: Combination, data: Mapping[str, Any]
) -> tuple[Setting, ...]:
    """What a combination gets, in order; `data` is the spec with it. Raises Faults.

    That is for a path that the grid gives a value: the label of an arm would say another one.
    """
    settings = [s for entry in entries if entry.applies(picks, data) for s in entry.settings]
    faults = [
        Fault(setting.path, f"the grid varies {pick.axis}: leave one of the two out", at_key=True)
        for setting in settings
        for pick in picks
        if _overrides(setting, pick.target, pick.value)
    ]
    if faults:
        raise Faults(*faults)
    return tuple(settings)


def with_settings(data: Mapping[str, Any], settings: Iterable[Setting]) -> Mapping[str, Any]:
    """The data with every setting in its place. Raises Faults."""
    for setting in settings:
        data = put(data, setting.keys, setting.value, setting.path)
    return data


def idle_settings(
    entries: Iterable[SettingsEntry], combinations: Sequence[tuple[Combination, Mapping[str, Any]]]
) -> list[Fault]:
    """Faults of entries that apply to no combination; each comes with its spec, unchecked."""
    return [
        Fault((*entry.path, "at"), f"applies to no combination: none has {said(entry.at)}")
        for entry in entries
        if not any(entry.applies(picks, data) for picks, data in combinations)
    ]


def told_at_setting(fault: Fault, settings: Sequence[Setting], is_new: bool) -> Fault | None:
    """The fault of a spec at the setting that its value came from; None where it came from none.

    `is_new`: it is not there without the settings, so that one inside of the place makes it.
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
        shape = "give `at`, dotted paths with values to find, and `set`, paths with values to put"
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
    """What is read of each; or all that is wrong with them. Raises Faults."""
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
    """Whether a setting is put where the grid has put a value, around it, or over a piece of it."""
    rest = setting.keys[len(target) :]
    if (*target, *rest) == setting.keys:
        return not rest or value_at(value, rest) is not None
    return target[: len(setting.keys)] == setting.keys

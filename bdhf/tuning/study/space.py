"""A search space: its dimensions, and from a trial to the settings of an arm.

A choice may bring dimensions of its own, which exist only where it is made (Optuna's
define-by-run; Akiba et al., 2019, section 2). `reading.py` has the YAML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optuna import Trial

from bdhf.experiments.errors import Fault, Faults, Keys, unknown
from bdhf.experiments.parts.tables import NUMBERS
from bdhf.experiments.spec.dotted_paths import keys_of, put, value_at
from bdhf.experiments.spec.value_words import exactly
from bdhf.records import Parameter

#: Settings of an arm: dotted path below it -> value. A shorter path comes before what is in it.
ArmSettings = dict[str, Any]


@dataclass(frozen=True)
class Range:
    """Numbers between two ends."""

    path: str
    name: str
    low: float
    high: float
    scale: Literal["log", "linear"]
    whole: bool

    def suggest(self, trial: Trial) -> float | int:
        """The value in a trial."""
        log = self.scale == "log"
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=log)
        return trial.suggest_float(self.name, self.low, self.high, log=log)

    def number(self, value: float) -> float | int:
        """A value of the kind that a trial gives."""
        return int(value) if self.whole else float(value)

    def at_edge(self, value: float) -> bool:
        """Whether a value lies within 1 % of the range from an end of it."""
        low, high, at = self.low, self.high, float(value)
        if self.scale == "log":
            low, high, at = math.log(low), math.log(high), math.log(at)
        return min(at - low, high - at) <= 0.01 * (high - low)


@dataclass(frozen=True)
class Choice:
    """One of some values, by their words; each may bring dimensions and fixed values with it."""

    path: str
    name: str
    values: Mapping[str, Any]  # words -> value, a part without what is searched in it
    inner: Mapping[str, tuple[Dimension, ...]]  # words -> what exists where it is chosen

    def suggest(self, trial: Trial) -> str:
        """The words of the value in a trial."""
        return str(trial.suggest_categorical(self.name, list(self.values)))


Dimension = Range | Choice


def settings_of(space: Sequence[Dimension], chosen: Callable[[Dimension], Any]) -> ArmSettings:
    """The settings that `chosen` makes of a space: it gives a number, or the words of a choice."""
    settings: ArmSettings = {}
    for one in space:
        value = chosen(one)
        settings[one.path] = one.number(value) if isinstance(one, Range) else one.values[value]
        if isinstance(one, Choice):
            settings |= settings_of(one.inner[value], chosen)
    return settings


def suggested(space: Sequence[Dimension], trial: Trial) -> ArmSettings:
    """The settings of a trial."""
    return settings_of(space, lambda one: one.suggest(trial))


def defaults(space: Sequence[Dimension], arm: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> the value at which a resolved arm stands, as a trial has it."""
    found: dict[str, Any] = {}
    for one in space:
        value = standing_at(one, arm, ())
        found[one.name] = value
        if isinstance(one, Choice):
            found |= defaults(one.inner[value], arm)
    return found


def placed(arm: Mapping[str, Any] | str, settings: ArmSettings) -> dict[str, Any]:
    """An arm, also one given by its name, with settings in their places; it is to be resolved."""
    given: Any = {"type": arm} if isinstance(arm, str) else dict(arm)
    for path, value in settings.items():
        given = put(given, _keys(path), value, (), ("arms",))
    whole: dict[str, Any] = given
    return whole


def corners(
    space: Sequence[Dimension], arm: Mapping[str, Any]
) -> Iterator[tuple[Dimension, ArmSettings]]:
    """Every end of every range, and every choice, with all else as the resolved arm has it."""
    standing = defaults(space, arm)

    def other(one: Dimension) -> Any:
        first = one.low if isinstance(one, Range) else next(iter(one.values))
        return standing.get(one.name, first)

    for one, path in all_of(space):
        for value in [one.low, one.high] if isinstance(one, Range) else list(one.values):
            there = {**path, one.name: value}
            yield one, settings_of(space, lambda d, at=there: at.get(d.name, other(d)))  # type: ignore[misc]


def parameters(space: Sequence[Dimension], arm: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """The dimensions as the records of a study have them."""
    standing = defaults(space, arm)
    return tuple(
        Parameter(
            name=one.name,
            scale=one.scale if isinstance(one, Range) else "choice",
            low=one.low if isinstance(one, Range) else None,
            high=one.high if isinstance(one, Range) else None,
            whole=isinstance(one, Range) and one.whole,
            choices=() if isinstance(one, Range) else tuple(one.values),
            default=standing.get(one.name),
            parent=" ".join(f"{name}={value}" for name, value in path.items()),
        )
        for one, path in all_of(space)
    )


def all_of(
    space: Sequence[Dimension], path: Mapping[str, str] | None = None
) -> Iterator[tuple[Dimension, Mapping[str, str]]]:
    """Every dimension, with the choices that bring it in."""
    for one in space:
        yield one, path or {}
        for words, inner in one.inner.items() if isinstance(one, Choice) else ():
            yield from all_of(inner, {**(path or {}), one.name: words})


def standing_at(one: Dimension, arm: Mapping[str, Any], place: Keys) -> Any:
    """Where a resolved arm stands in a dimension. Raises Faults where that is outside of it."""
    keys = _keys(one.path)
    if keys[0] not in arm:
        known = [key for key in arm if key != "type"]
        raise Faults(Fault(place, unknown(f"key of {arm['type']}", keys[0], known), at_key=True))
    if any(isinstance(key, int) for key in keys):
        message = "a list is searched as a whole: give choices that are lists"
        raise Faults(Fault(place, message, at_key=True))
    value = value_at(arm, keys)
    if isinstance(one, Range):
        value = _as_number(one.path, value)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not one.low <= value <= one.high or (one.whole and value % 1):
            raise Faults(Fault(place, _outside(value, f"{one.low:g} to {one.high:g}")))
        return int(value) if one.whole else float(value)
    for words, choice in one.values.items():
        if _stands_at(one, words, choice, value):
            for inner in one.inner[words]:
                standing_at(inner, arm, place)
            return words
    raise Faults(Fault(place, _outside(value, ", ".join(one.values))))


def _outside(value: Any, known: str) -> str:
    return (
        f"the spec has {exactly(value)} there, which is none of {known}; trial 0 is the spec's own "
        "settings, so they must lie in the space"
    )


def _stands_at(one: Choice, words: str, choice: Any, value: Any) -> bool:
    """Whether a resolved value is a choice: for parts, whether its type and fixed values are."""
    if isinstance(value, dict) and isinstance(choice, (str, int, float)):
        short = _as_number(one.path, value)
        return exactly(short) == exactly(choice) or value.get("type") == choice
    if isinstance(value, dict) and isinstance(choice, dict):
        return all(exactly(value.get(key)) == exactly(inner) for key, inner in choice.items())
    return exactly(value) == exactly(choice)


def _as_number(path: str, value: Any) -> Any:
    """A part that may be given as a number, as that number."""
    kind, argument = NUMBERS.get(path, ("", ""))
    if isinstance(value, dict) and value.get("type") == kind:
        return value[argument]
    return value


def _keys(path: str) -> Keys:
    return keys_of(path, {}, ())

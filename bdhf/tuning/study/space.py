"""A search space: its dimensions, and the settings of an arm from a trial.

A choice may add dimensions, which exist only where it is made (Optuna's define-by-run; Akiba et
al., 2019, section 2). `yaml_spaces.py` reads the YAML.
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

#: Settings of an arm: dotted path below it -> value. A part comes before the paths within it.
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
        """A value with the type of a trial's values."""
        return int(value) if self.whole else float(value)

    def at_edge(self, value: float) -> bool:
        """Whether the distance of a value to an end is at most 1 % of the range."""
        low, high, at = self.low, self.high, float(value)
        if self.scale == "log":
            low, high, at = math.log(low), math.log(high), math.log(at)
        return min(at - low, high - at) <= 0.01 * (high - low)


@dataclass(frozen=True)
class Choice:
    """One of several named values; each may add dimensions and fixed values."""

    path: str
    name: str
    values: Mapping[str, Any]  # name -> value; a part without its searched arguments
    inner: Mapping[str, tuple[Dimension, ...]]  # name -> dimensions that exist where it is chosen

    def suggest(self, trial: Trial) -> str:
        """The name of the value in a trial."""
        return str(trial.suggest_categorical(self.name, list(self.values)))


Dimension = Range | Choice


def settings_of(space: Sequence[Dimension], chosen: Callable[[Dimension], Any]) -> ArmSettings:
    """The settings of a space, where `chosen` returns a number or the name of a choice."""
    settings: ArmSettings = {}
    for dimension in space:
        value = chosen(dimension)
        if isinstance(dimension, Range):
            settings[dimension.path] = dimension.number(value)
        else:
            settings[dimension.path] = dimension.values[value]
            settings |= settings_of(dimension.inner[value], chosen)
    return settings


def suggested(space: Sequence[Dimension], trial: Trial) -> ArmSettings:
    """The settings of a trial."""
    return settings_of(space, lambda dimension: dimension.suggest(trial))


def defaults(space: Sequence[Dimension], arm: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> the value of a resolved arm, in the form of a trial."""
    values: dict[str, Any] = {}
    for dimension in space:
        value = default_at(dimension, arm, ())
        values[dimension.name] = value
        if isinstance(dimension, Choice):
            values |= defaults(dimension.inner[value], arm)
    return values


def placed(arm: Mapping[str, Any] | str, settings: ArmSettings) -> dict[str, Any]:
    """An arm, or the name of one, with these settings; not yet resolved."""
    tree: Any = {"type": arm} if isinstance(arm, str) else dict(arm)
    for path, value in settings.items():
        tree = put(tree, _keys(path), value, (), ("arms",))
    whole: dict[str, Any] = tree
    return whole


def corners(
    space: Sequence[Dimension], arm: Mapping[str, Any]
) -> Iterator[tuple[Dimension, ArmSettings]]:
    """Every end of every range and every choice; all other values are those of the resolved arm."""
    default_values = defaults(space, arm)

    def other(dimension: Dimension) -> Any:
        return default_values.get(dimension.name, _ends(dimension)[0])

    for dimension, path in all_of(space):
        for value in _ends(dimension):
            there = {**path, dimension.name: value}
            yield dimension, settings_of(space, lambda d, at=there: at.get(d.name, other(d)))  # type: ignore[misc]


def _ends(dimension: Dimension) -> Sequence[float | str]:
    if isinstance(dimension, Range):
        return dimension.low, dimension.high
    return tuple(dimension.values)


def parameters(space: Sequence[Dimension], arm: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """The dimensions for the records of a study."""
    default_values = defaults(space, arm)
    return tuple(
        Parameter(
            name=dimension.name,
            scale=dimension.scale if isinstance(dimension, Range) else "choice",
            low=dimension.low if isinstance(dimension, Range) else None,
            high=dimension.high if isinstance(dimension, Range) else None,
            whole=isinstance(dimension, Range) and dimension.whole,
            choices=() if isinstance(dimension, Range) else tuple(dimension.values),
            default=default_values.get(dimension.name),
            parent=" ".join(f"{name}={value}" for name, value in path.items()),
        )
        for dimension, path in all_of(space)
    )


def all_of(
    space: Sequence[Dimension], path: Mapping[str, str] | None = None
) -> Iterator[tuple[Dimension, Mapping[str, str]]]:
    """Every dimension, with the choices on which it depends."""
    for dimension in space:
        yield dimension, path or {}
        for words, inner in dimension.inner.items() if isinstance(dimension, Choice) else ():
            yield from all_of(inner, {**(path or {}), dimension.name: words})


def default_at(dimension: Dimension, arm: Mapping[str, Any], where: Keys) -> Any:
    """The value of a resolved arm in a dimension. Raises Faults for a value outside of it."""
    keys = _keys(dimension.path)
    if keys[0] not in arm:
        allowed = [key for key in arm if key != "type"]
        raise Faults(Fault(where, unknown(f"key of {arm['type']}", keys[0], allowed), at_key=True))
    if any(isinstance(key, int) for key in keys):
        message = "a list can only be searched as a whole: give choices that are lists"
        raise Faults(Fault(where, message, at_key=True))
    value = value_at(arm, keys)
    if isinstance(dimension, Range):
        value = _as_number(dimension.path, value)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        inside = number and dimension.low <= value <= dimension.high
        if not inside or (dimension.whole and value % 1):
            raise Faults(Fault(where, _outside(value, f"{dimension.low:g} to {dimension.high:g}")))
        return int(value) if dimension.whole else float(value)
    for words, choice in dimension.values.items():
        if _stands_at(dimension, words, choice, value):
            for inner in dimension.inner[words]:
                default_at(inner, arm, where)
            return words
    raise Faults(Fault(where, _outside(value, ", ".join(dimension.values))))


def _outside(value: Any, allowed: str) -> str:
    return (
        f"the spec has {exactly(value)}, which is not in the space ({allowed}); trial 0 has the "
        "settings of the spec, so the space must contain them"
    )


def _stands_at(dimension: Choice, words: str, choice: Any, value: Any) -> bool:
    """Whether a resolved value equals a choice; for a part, compare its type and fixed values."""
    if isinstance(value, dict) and isinstance(choice, (str, int, float)):
        short = _as_number(dimension.path, value)
        return exactly(short) == exactly(choice) or value.get("type") == choice
    if isinstance(value, dict) and isinstance(choice, dict):
        return all(exactly(value.get(key)) == exactly(inner) for key, inner in choice.items())
    return exactly(value) == exactly(choice)


def _as_number(path: str, value: Any) -> Any:
    """The number of a part that may be given as a number."""
    kind, argument = NUMBERS.get(path, ("", ""))
    if isinstance(value, dict) and value.get("type") == kind:
        return value[argument]
    return value


def _keys(path: str) -> Keys:
    return keys_of(path, {}, ())

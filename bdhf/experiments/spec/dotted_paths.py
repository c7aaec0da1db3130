"""Dotted paths into the data of a spec: `arms.hf.solver.max_iters`, `targets.0.below`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bdhf.experiments.errors import Fault, Faults, Keys, unknown
from bdhf.experiments.spec.schema import SECTIONS

_PARTS = ("problem", "arms")  # below these keys a text names a part


@dataclass(frozen=True)
class Setting:
    """A value at the end of a path."""

    keys: Keys
    value: Any
    path: Keys  # in the file, where the spec states it


def keys_of(path: str, data: Mapping[str, Any], at: Keys) -> Keys:
    """The keys of a path; the name of an arm may contain dots. Raises Faults, located `at`."""
    keys = tuple(int(key) if key.isdecimal() and len(key) < 10 else key for key in path.split("."))
    if keys[0] != "arms":
        return keys
    arms = data["arms"] if isinstance(data.get("arms"), dict) else {}
    inner = path.removeprefix("arms").removeprefix(".")
    fitting = [name for name in arms if f"{inner}.".startswith(f"{name}.")]
    if not fitting:
        message = (
            unknown("arm", inner.split(".")[0], arms)
            if inner
            else f"name one arm, for example arms.{next(iter(arms), 'NAME')}"
        )
        raise Faults(Fault(at, message, at_key=True))
    name = max(fitting, key=len)
    rest = inner[len(name) + 1 :]
    return ("arms", name, *(keys_of(rest, {}, at) if rest else ()))


def value_at(data: Any, keys: Keys) -> Any:
    """The value at the end of a path, or None."""
    for key in keys:
        if isinstance(data, str) and key == "type":
            return data  # a part, given by its name
        if isinstance(data, Mapping):
            data = data.get(str(key))
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            return None
    return data


def put(data: Any, keys: Keys, value: Any, at: Keys, done: Keys = ()) -> Any:
    """The data with a value at the end of a path; the rest is shared, not copied.

    A part given by its name becomes a mapping where the path continues into it. Raises Faults,
    located `at`, where a path continues into no mapping or list.
    """
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(data, str) and done and done[0] in _PARTS:
        data = {"type": data}
    if data is None and len(done) == 1 and done[0] in SECTIONS:
        data = {}
    if isinstance(data, dict):
        name = str(key)
        return {**data, name: put(data.get(name), rest, value, at, (*done, name))}
    if isinstance(data, list) and isinstance(key, int) and key < len(data):
        inner = put(data[key], rest, value, at, (*done, key))
        return [*data[:key], inner, *data[key + 1 :]]
    raise Faults(Fault(at, _no_way(data, key, done), at_key=True))


def _no_way(data: Any, key: str | int, done: Keys) -> str:
    there = ".".join(map(str, done))
    if isinstance(data, list):
        return f"{there} is a list of length {len(data)}, numbered from 0, without entry {key!r}"
    return f"{there} is not a mapping in the spec: write it as one, with its `type`"

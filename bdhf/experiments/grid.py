"""A grid: dotted paths into a spec, each with a list of values; every combination is a spec.

    grid: {batch.curvature: [125, 250], arms.hf.partition: [full, per_layer]}

A combination is put into the raw data, which is then checked like a spec of its own; what is wrong
with a value of the grid is told where it stands in the grid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import Any

from bdhf.experiments.errors import Fault, Keys, unknown
from bdhf.experiments.parts import Faults
from bdhf.experiments.schema import Spec

#: First keys of the paths that a grid may vary; the other keys are those of the whole ablation.
VARIED = ("problem", "batch", "arms", "budget", "evaluate", "dtype", "threads")

_SECTIONS = ("batch", "budget", "evaluate")  # a path may add a key to one that is left out
_LONGEST = 40  # characters of a value in words


@dataclass(frozen=True)
class Pick:
    """One value of one axis of the grid."""

    axis: str  # the dotted path, as written
    target: Keys  # its place in the spec
    value: Any
    words: str  # the value in short words: no other value of the axis has the same
    source: Keys  # its place in the file


Combination = tuple[Pick, ...]


@dataclass(frozen=True)
class Variant:
    """One combination of the grid, and the spec with it: checked and complete."""

    picks: Combination
    spec: Spec


def combinations(data: Mapping[str, Any]) -> tuple[Combination, ...]:
    """Every combination of a spec's grid; without a grid one, of nothing. Raises Faults."""
    if "grid" not in data:
        return ((),)
    grid = data["grid"]
    if not isinstance(grid, dict) or not grid:
        raise Faults(
            Fault(("grid",), f"a grid is a mapping of dotted paths to lists of values; got {grid}")
        )
    axes: list[list[Pick]] = []
    faults: list[Fault] = []
    for path, values in grid.items():
        try:
            axes.append(_axis(path, values, data))
        except Faults as found:
            faults += found.faults
    if faults:
        raise Faults(*faults)
    return tuple(product(*axes))


def applied(data: Mapping[str, Any], combination: Combination) -> dict[str, Any]:
    """The data of a spec with every pick in its place, and without its grid. Raises Faults."""
    spec = deepcopy({key: value for key, value in data.items() if key != "grid"})
    for pick in sorted(combination, key=lambda pick: len(pick.target)):  # a whole, then its parts
        _put(spec, pick)
    return spec


def traced(fault: Fault, combination: Combination) -> Fault:
    """The fault of a spec at the place in the grid that its value came from, if it did."""
    picks = [pick for pick in combination if fault.path[: len(pick.target)] == pick.target]
    if not picks:
        return fault
    pick = max(picks, key=lambda pick: len(pick.target))
    rest = fault.path[len(pick.target) :]
    if fault.at_key and not rest:  # the path itself is wrong
        return Fault(pick.source[:-1], fault.message, at_key=True)
    return Fault((*pick.source, *rest), fault.message, fault.at_key)


def in_words(picks: Sequence[Pick]) -> str:
    """Picks as a label: the end of each path, as short as tells it from the others.

    >>> picks = [Pick(".".join(keys), keys, 1, "1", ()) for keys in (("batch", "curvature"),)]
    >>> in_words(picks)
    'curvature=1'
    """
    return " ".join(f"{_ending(pick, picks)}={pick.words}" for pick in picks)


def _ending(pick: Pick, picks: Sequence[Pick]) -> str:
    for length in range(1, len(pick.target)):
        ending = pick.target[-length:]
        if sum(other.target[-length:] == ending for other in picks) == 1:
            return ".".join(map(str, ending))
    return pick.axis


def _axis(path: str, values: Any, data: Mapping[str, Any]) -> list[Pick]:
    """The picks of one axis. Raises Faults."""
    place = ("grid", path)
    target = _target(path, data)
    if not isinstance(values, list) or not values:
        message = f"give a list of values, at least one; got {_compact(values)}"
        raise Faults(Fault(place, message, at_key=True))
    exact = [json.dumps(value, sort_keys=True) for value in values]
    again = [index for index, text in enumerate(exact) if text in exact[:index]]
    if again:
        raise Faults(
            *(Fault((*place, i), f"{_compact(values[i])} is there already") for i in again)
        )
    return [
        Pick(path, target, value, words, (*place, index))
        for index, (value, words) in enumerate(zip(values, _words(values), strict=True))
    ]


def _target(path: str, data: Mapping[str, Any]) -> Keys:
    """The keys of a dotted path; the name of an arm may have dots itself. Raises Faults."""
    keys = tuple(path.split("."))
    if keys[0] not in VARIED:
        known = {field.alias or name for name, field in Spec.model_fields.items()}
        message = (
            f"{keys[0]!r} is one for the whole ablation; a grid may vary {', '.join(VARIED)}"
            if keys[0] in known
            else unknown("path", keys[0], VARIED)
        )
        raise Faults(Fault(("grid", path), message, at_key=True))
    if keys[0] != "arms":
        return keys
    arms = data["arms"] if isinstance(data.get("arms"), dict) else {}
    inner = path.removeprefix("arms").removeprefix(".")
    fitting = [name for name in arms if f"{inner}.".startswith(f"{name}.")]
    if not fitting:
        message = unknown("arm", inner.split(".")[0], arms)
        raise Faults(Fault(("grid", path), message, at_key=True))
    name = max(fitting, key=len)
    return ("arms", name, *inner[len(name) + 1 :].split(".")) if inner != name else ("arms", name)


def _put(spec: dict[str, Any], pick: Pick) -> None:
    """Set the value of a pick. Raises Faults where there is no mapping to set it in."""
    node = spec
    for depth, key in enumerate(map(str, pick.target[:-1]), start=1):
        if isinstance(node.get(key), str) and pick.target[0] in ("problem", "arms"):
            node[key] = {"type": node[key]}  # a part that is given by its name
        elif depth == 1 and key in _SECTIONS:
            node.setdefault(key, {})
        inner = node.get(key)
        if not isinstance(inner, dict):
            there = ".".join(map(str, pick.target[:depth]))
            message = f"{there} is no mapping in the spec: give it there, with its `type`"
            raise Faults(Fault(pick.source[:-1], message, at_key=True))
        node = inner
    node[str(pick.target[-1])] = deepcopy(pick.value)


def _words(values: Sequence[Any]) -> list[str]:
    """Each value in short words: a part by its type, with arguments and numbers if that repeats.

    >>> _words(["full", {"type": "cg", "tol": 0.1}, 250, [1, 2]])
    ['full', 'cg', '250', '[1,2]']
    >>> _words(["cg", {"type": "cg", "tol": 0.1}]), _words(["x" * 50, "x" * 51])[1][-3:]
    (['cg', 'cg(tol=0.1)'], '…#2')
    """
    short = [_compact(value) for value in values]
    words = [
        _with_arguments(value) if short.count(text) > 1 else text
        for value, text in zip(values, short, strict=True)
    ]
    counts = [words[: index + 1].count(text) for index, text in enumerate(words)]
    return [f"{text}#{n}" if n > 1 else text for text, n in zip(words, counts, strict=True)]


def _compact(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        return str(value["type"])
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _with_arguments(value: Any) -> str:
    if not isinstance(value, dict) or len(value) < 2 or "type" not in value:
        return _compact(value)
    arguments = (f"{key}={_compact(inner)}" for key, inner in value.items() if key != "type")
    return _compact(f"{value['type']}({','.join(arguments)})")

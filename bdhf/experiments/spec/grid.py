"""A grid: dotted paths into a spec, each with a list of values; every combination is a spec.

    grid: {batch.curvature: [125, 250], arms.hf.partition: [full, per_layer]}

A list of grids is their union: every combination of each. Each combination is written into the raw
data, which is then checked like any spec. A fault in a value of the grid is reported at the line of
that value in the grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from bdhf.experiments.errors import Fault, Faults, Keys, unknown
from bdhf.experiments.spec.dotted_paths import Setting, keys_of, put, value_at
from bdhf.experiments.spec.schema import Spec, keys_in
from bdhf.experiments.spec.size_limits import combinations_in, too_many_cells
from bdhf.experiments.spec.value_words import compact, exactly, in_short

#: First keys of the paths that a grid may vary and `settings` may set. All other keys apply to the
#: whole ablation.
VARIED = ("problem", "batch", "arms", "budget", "evaluate", "dtype", "threads")


@dataclass(frozen=True)
class Pick:
    """One value of one axis of the grid."""

    axis: str  # the dotted path, as written
    target: Keys  # the path in the spec
    value: Any
    words: str  # the value in short words, unique on the axis
    source: Keys  # the path in the file


Combination = tuple[Pick, ...]


@dataclass(frozen=True)
class LeftOut:
    """An arm that is excluded from a combination: why, and the axes whose values decide it."""

    why: str
    axes: frozenset[str]


@dataclass(frozen=True)
class Variant:
    """One combination of the grid, and the checked and complete spec with it."""

    picks: Combination
    spec: Spec
    excluded: Mapping[str, LeftOut] = field(default_factory=dict)  # by arm
    settings: tuple[Setting, ...] = ()  # the values that `settings` sets in it


def combinations(data: Mapping[str, Any]) -> tuple[Combination, ...]:
    """Every combination of a spec's grids; without a grid, one empty combination. Raises Faults.

    The first check is the number of cells.
    """
    grids, faults = _grids(data["grid"]) if "grid" in data else {}, list[Fault]()
    too_many = too_many_cells(combinations_in([*grids.values()]) if grids else 1, data)
    if too_many:
        at = ("grid",) if grids else ("seeds", "count")
        raise Faults(Fault(at, too_many, at_key=True))
    if not grids:
        return ((),)
    words = _words_of(grids, data)
    by_words: dict[tuple[str, ...], Combination] = {}
    for grid_path, grid in grids.items():
        axes: dict[str, list[Pick]] = {}
        for path in words:
            try:
                if path in grid:
                    axes[path] = _axis(path, grid[path], data, (*grid_path, path), words)
                else:
                    axes[path] = _as_it_stands(path, data, grid_path, words)
            except Faults as wrong:
                faults += wrong.faults
        for picks in product(*filter(None, axes.values())) if not faults else ():
            by_words.setdefault(tuple(f"{pick.axis}={pick.words}" for pick in picks), picks)
    if faults:
        raise Faults(*dict.fromkeys(faults))
    return tuple(by_words.values())


def applied(data: Mapping[str, Any], combination: Combination) -> dict[str, Any]:
    """The data of a spec with every pick written in, without the grid. Raises Faults."""
    of_grid = ("grid", "exclude", "settings")
    spec: dict[str, Any] = {k: v for k, v in data.items() if k not in of_grid}
    for pick in sorted(combination, key=lambda pick: len(pick.target)):  # outer paths first
        spec = put(spec, pick.target, pick.value, pick.source[:-1])
    return spec


def traced(fault: Fault, combination: Combination) -> Fault:
    """A fault of a spec, moved to the value in the grid that it comes from, if any."""
    picks = [pick for pick in combination if fault.path[: len(pick.target)] == pick.target]
    if not picks:
        return fault
    pick = max(picks, key=lambda pick: len(pick.target))
    rest = fault.path[len(pick.target) :]
    if fault.at_key and not rest:  # the path itself is wrong
        return Fault(pick.source[:-1], fault.message, at_key=True)
    return Fault((*pick.source, *rest), fault.message, fault.at_key)


def target_of(path: str, data: Mapping[str, Any], at: Keys) -> Keys:
    """The keys of a path that a grid may vary. Raises Faults, located `at`."""
    first = path.split(".")[0]
    if first in VARIED:
        return keys_of(path, data, at)
    message = (
        f"{first!r} applies to the whole ablation; a grid may vary {', '.join(VARIED)}"
        if first in keys_in(Spec)
        else unknown("path", first, VARIED)
    )
    raise Faults(Fault(at, message, at_key=True))


def picks_in_words(picks: Sequence[Pick], arm: str = "") -> str:
    """Picks as a label: the shortest unique ending of each path.

    In the label of an `arm`, a setting of another arm has the name of that arm.

    >>> picks = [Pick(".".join(keys), keys, 1, "1", ()) for keys in (("batch", "curvature"),)]
    >>> picks_in_words(picks)
    'curvature=1'
    """
    return " ".join(f"{_ending(pick, picks, arm)}={pick.words}" for pick in picks)


def _ending(pick: Pick, picks: Sequence[Pick], arm: str) -> str:
    is_of_another = arm and pick.target[0] == "arms" and pick.target[1] != arm
    for length in range(len(pick.target) - 1 if is_of_another else 1, len(pick.target)):
        ending = pick.target[-length:]
        if sum(other.target[-length:] == ending for other in picks) == 1:
            return ".".join(map(str, ending))
    return pick.axis


def _grids(raw: Any) -> dict[Keys, dict[str, Any]]:
    """Every grid, by its path in the file. Raises Faults."""
    grids: dict[Keys, dict[str, Any]] = {("grid",): raw}
    if isinstance(raw, list) and raw:
        grids = {("grid", index): grid for index, grid in enumerate(raw)}
    faults = [
        Fault(path, f"a grid is a mapping of dotted paths to lists of values; got {grid}")
        for path, grid in grids.items()
        if not isinstance(grid, dict) or not grid
    ]
    if faults:
        raise Faults(*faults)
    return grids


def _words_of(
    grids: Mapping[Keys, Mapping[str, Any]], data: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    """Axis -> exact text of a value -> its short words, the same in every grid."""
    values: dict[str, dict[str, Any]] = {}
    for path in dict.fromkeys(path for grid in grids.values() for path in grid):
        of_one = values.setdefault(path, {})
        for grid in grids.values():
            listed = grid[path] if path in grid else _spec_values(path, data)
            for value in listed if isinstance(listed, list) else ():
                of_one.setdefault(exactly(value), value)
    return {
        path: dict(zip(of_one, in_short(list(of_one.values())), strict=True))
        for path, of_one in values.items()
    }


def _spec_values(path: str, data: Mapping[str, Any]) -> list[Any]:
    """The value on a path outside of the grid, as a list; empty for a default."""
    try:
        value = value_at(data, keys_of(path, data, ()))
    except Faults:
        return []
    return [] if value is None else [value]


def _as_it_stands(
    path: str, data: Mapping[str, Any], at: Keys, words: Mapping[str, Mapping[str, str]]
) -> list[Pick]:
    """The single pick of an axis that this grid of a union does not vary; none for a default."""
    return [
        Pick(path, keys_of(path, data, at), value, words[path][exactly(value)], (*at, path))
        for value in _spec_values(path, data)
    ]


def _axis(
    path: str,
    values: Any,
    data: Mapping[str, Any],
    at: Keys,
    words: Mapping[str, Mapping[str, str]],
) -> list[Pick]:
    """The picks of one axis. Raises Faults."""
    target = target_of(path, data, at)
    if not isinstance(values, list) or not values:
        message = f"give a list of values, at least one; got {compact(values)}"
        raise Faults(Fault(at, message, at_key=True))
    exact = [exactly(value) for value in values]
    first = {text: index for index, text in reversed([*enumerate(exact)])}
    again = [index for index, text in enumerate(exact) if first[text] < index]
    if again:
        raise Faults(*(Fault((*at, i), f"{compact(values[i])} is a duplicate") for i in again))
    return [
        Pick(path, target, value, words[path][text], (*at, index))
        for index, (value, text) in enumerate(zip(values, exact, strict=True))
    ]

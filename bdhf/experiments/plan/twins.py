"""Entries of `compare` that would compare a run with itself: refused before anything is run.

Two arms with equal settings share their runs under both names. In a grid such a combination is left
out of the entry and reported; an entry without any other combination is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bdhf.experiments.errors import Fault
from bdhf.experiments.plan.expand import Plan
from bdhf.experiments.spec.grid import Variant, applied
from bdhf.experiments.spec.settings import with_settings
from bdhf.experiments.spec.value_words import exactly, in_short
from bdhf.experiments.spec.yaml_source import Source

#: How many differences in the notation of two arms a message names.
_NAMED = 3


def only_twins(plan: Plan) -> tuple[int, ...]:
    """The indices in `compare` of the entries whose arms are the same runs in all combinations."""
    twins: dict[int, list[bool]] = {}
    for question in plan.questions:
        twins.setdefault(question.index, []).append(question.is_of_twins)
    return tuple(index for index, are_twins in twins.items() if all(are_twins))


def refuse_twins(plan: Plan, variants: Sequence[Variant], source: Source) -> None:
    """Raise SpecError if an entry compares only runs with themselves."""
    faults = [_fault(index, variants, source) for index in only_twins(plan)]
    if faults:
        raise source.error(faults)


def _fault(index: int, variants: Sequence[Variant], source: Source) -> Fault:
    entry = variants[0].spec.compare[index]
    names = entry.candidate, entry.baseline
    both = [v for v in variants if not v.excluded.keys() & {*names}]
    variant = (both or list(variants))[0]
    arms = with_settings(applied(source.data, variant.picks), variant.settings)["arms"]
    why = list(_unlike(arms[names[0]], arms[names[1]], names))
    details = "; ".join(why[:_NAMED]) or "they have the same settings"
    where = " in every combination of the grid" if variant.picks else ""
    return Fault(
        ("compare", index),
        f"{names[0]} and {names[1]} are the same runs{where} ({details}), so there is nothing to "
        "compare: change one of the two arms, or remove this entry",
    )


def _unlike(first: Any, second: Any, arms: tuple[str, str], path: str = "") -> Iterator[str]:
    """The differences in notation of two arms that are the same, by key."""
    if path and not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        if exactly(first) != exactly(second):
            yield f"{path} is written in two ways"
        return
    first, second = ({"type": arm} if isinstance(arm, str) else arm for arm in (first, second))
    for key in dict.fromkeys([*first, *second]):
        inner = f"{path}.{key}" if path else key
        if key in first and key in second:
            yield from _unlike(first[key], second[key], arms, inner)
            continue
        arm, value = (arms[0], first[key]) if key in first else (arms[1], second[key])
        yield f"{inner} {in_short([value])[0]} of {arm} is the default"

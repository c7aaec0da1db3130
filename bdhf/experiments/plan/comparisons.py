"""Which arms are compared: every entry of `compare` in every combination of the grid.

Where an arm is excluded by values on some axes, its cell with the same values on the other axes
represents it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.spec.grid import VARIED, Combination, Variant, picks_in_words
from bdhf.experiments.spec.schema import Spec
from bdhf.records import Comparison


@dataclass(frozen=True)
class Arm:
    """An arm of the spec, in the combinations that give the same runs."""

    label: str
    name: str  # in the spec
    picks: Combination  # on the axes that change its runs
    spec: Spec  # the first of these combinations
    run: RunSpec  # with the first seed
    run_id: str


@dataclass(frozen=True)
class Question:
    """An entry of `compare`, in a combination of the grid."""

    index: int  # of the entry in the spec
    comparison: Comparison  # by the labels of the arms
    is_of_twins: bool  # whether both arms are the same runs there


#: Keys of a spec that belong to the question: runs that differ in them do not replace each other.
_QUESTION_KEYS = tuple(key for key in VARIED if key not in ("arms", "batch"))

#: An arm in every combination; None where the spec excludes it.
Places = Sequence[Arm | None]


def questions(
    entries: Sequence[Comparison], places: Mapping[str, Places], variants: Sequence[Variant]
) -> tuple[Question, ...]:
    """Every entry, once per pair of arms that meet in a combination."""
    questions: dict[tuple[int, str, str], Question] = {}
    filled = {name: _filled(name, places[name], variants) for name in _compared(entries)}
    for index, entry in enumerate(entries):
        sides = filled[entry.candidate], filled[entry.baseline]
        axes = {pick.axis for side in sides for arm in side if arm for pick in arm.picks}
        for variant, candidate, baseline in zip(variants, *sides, strict=True):
            if candidate is None or baseline is None:
                continue
            words = picks_in_words([pick for pick in variant.picks if pick.axis in axes])
            update = {
                "name": " ".join(filter(None, [entry.name, words])),
                "candidate": candidate.label,
                "baseline": baseline.label,
            }
            key = (index, candidate.label, baseline.label)
            if key not in questions:
                twins = candidate.run_id == baseline.run_id
                questions[key] = Question(index, entry.model_copy(update=update), twins)
    return tuple(questions.values())


def _compared(entries: Sequence[Comparison]) -> set[str]:
    return {name for entry in entries for name in (entry.candidate, entry.baseline)}


def _filled(name: str, places: Places, variants: Sequence[Variant]) -> Places:
    """An arm in every combination; where it is excluded, its cell with other values on those axes.

    None if there is no such cell, or more than one; and if the axis, or a value of `settings`,
    changes the question: a run on another problem, or with another budget, is not a baseline.
    """
    axes = {left.axes for variant in variants if (left := variant.excluded.get(name))}
    others = {
        left: _by_other_axes(left, places, variants) if all(map(_is_replaceable, left)) else {}
        for left in axes
    }
    filled = []
    for own, variant in zip(places, variants, strict=True):
        left = variant.excluded.get(name)
        there = others[left.axes].get(_on_other_axes(variant, left.axes), {}) if left else {}
        alike = [arm for arm in there.values() if _same_question(arm.spec, variant.spec)]
        filled.append(alike[0] if len(there) == len(alike) == 1 else own)
    return filled


def _is_replaceable(axis: str) -> bool:
    return axis.split(".")[0] not in _QUESTION_KEYS


def _same_question(other: Spec, spec: Spec) -> bool:
    return all(getattr(other, key) == getattr(spec, key) for key in _QUESTION_KEYS)


def _by_other_axes(
    axes: frozenset[str], places: Places, variants: Sequence[Variant]
) -> dict[tuple[tuple[str, str], ...], dict[str, Arm]]:
    """The values on all axes but these -> the arms there, by the ids of their runs."""
    arms: dict[tuple[tuple[str, str], ...], dict[str, Arm]] = {}
    for arm, variant in zip(places, variants, strict=True):
        if arm:
            arms.setdefault(_on_other_axes(variant, axes), {})[arm.run_id] = arm
    return arms


def _on_other_axes(variant: Variant, axes: frozenset[str]) -> tuple[tuple[str, str], ...]:
    return tuple((pick.axis, pick.words) for pick in variant.picks if pick.axis not in axes)

"""The verdict of every comparison under every other choice that its author could have made.

A verdict depends on choices: the target and its difficulty, the axis of the cost, the margin, the
cell of the grid. The verdict is computed for every combination of choices, as if the spec had made
them for this comparison alone (multiverse analysis; Steegen et al., 2016): Holm counts the same
tests, and the other tests stay as they are. The spec's own choice is among them, with the verdict
of the report.

Targets that are easier than the spec's are choices too, because the curves pass through them;
harder ones are not, because runs may have ended before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import pandas as pd

from bdhf.records import AXES, LOSSES, Comparison, Records, Target, tests_of, unit_of
from bdhf.stats.judge import HypothesisTest, judge_one, test, tested
from bdhf.stats.observations.idle import most_spent
from bdhf.stats.result import Verdict
from bdhf.stats.table import table_of

#: Axes of the cost, in addition to that of the spec.
_CHOSEN_AXES = ("updates", "products", "seconds")

#: Margins, in addition to that of the spec.
CHOSEN_MARGINS = (1.05, 1.1, 1.25)

#: Factors of easier targets: they multiply `below`, and divide `above`.
_EASIER = (1.0, 1.1, 1.25, 1.5)


@dataclass(frozen=True)
class AnalysisChoice:
    """One way to make a comparison, and its result."""

    question: str  # the comparison of the spec
    name: str  # with the cell of the grid
    target: str  # in words; "" for a loss
    measure: str  # the estimand, in words
    margin: float  # NaN: none
    is_declared: bool  # whether the spec makes this choice
    ratio: float  # NaN without pairs, and without ratios
    p_holm: float
    pairs: int
    planned: int
    verdict: Verdict


@dataclass(frozen=True)
class Universe:
    """All choices of one comparison of the spec."""

    question: str
    choices: tuple[AnalysisChoice, ...]
    left_out: tuple[str, ...]  # choices that cannot be made, and why

    @property
    def declared(self) -> tuple[AnalysisChoice, ...]:
        """The choices of the spec: one for every cell of the grid and target."""
        return tuple(choice for choice in self.choices if choice.is_declared)

    @property
    def verdict(self) -> Verdict:
        """The most frequent verdict of the spec's choices; of equals, the first."""
        return Counter(choice.verdict for choice in self.declared).most_common(1)[0][0]

    @property
    def holding(self) -> int:
        """Choices with that verdict."""
        return sum(choice.verdict is self.verdict for choice in self.choices)

    @property
    def others(self) -> tuple[AnalysisChoice, ...]:
        """Choices with another verdict."""
        return tuple(choice for choice in self.choices if choice.verdict is not self.verdict)

    @property
    def sentence(self) -> str:
        """In words: "block vs full: better holds in 43 of 48 choices; undecided in 5"."""
        counts = Counter(choice.verdict for choice in self.others)
        rest = "".join(f"; {verdict} in {n}" for verdict, n in sorted(counts.items()))
        of = f"{self.holding} of {len(self.choices)}"
        return f"{self.question}: {self.verdict} holds in {of} choices{rest}"


def multiverse(records: Records) -> tuple[Universe, ...]:
    """Make every comparison of the spec in every way, in the order of the spec.

    Raises ValueError for a target whose metric the curves do not have.
    """
    records = records.in_order()
    tests = tested(records)
    choices_of: dict[str, list[AnalysisChoice]] = {}
    left_out: dict[str, dict[str, None]] = {}
    for index, (entry, target) in enumerate(tests_of(records.comparisons, records.targets)):
        question = records.question_of(entry.name)
        sides = _of_two_arms(records, entry)
        ways, why = _ways(sides, entry, target)
        left_out.setdefault(question, {}).update(dict.fromkeys(why))
        choices_of.setdefault(question, []).extend(_made(sides, tests, index, ways, question))
    return tuple(
        Universe(question, tuple(choices), tuple(left_out[question]))
        for question, choices in choices_of.items()
    )


def universe_table(universes: Sequence[Universe]) -> pd.DataFrame:
    """A row per choice, with the fields of `AnalysisChoice`."""
    rows = [
        {**asdict(choice), "verdict": str(choice.verdict)}
        for universe in universes
        for choice in universe.choices
    ]
    return table_of(AnalysisChoice, rows)


_Way = tuple[Comparison, Target | None]


def _ways(
    records: Records, entry: Comparison, target: Target | None
) -> tuple[list[_Way], list[str]]:
    """Every entry and target that could replace this one; margins come later."""
    if target is None:
        others = (entry.model_copy(update={"estimand": loss}) for loss in LOSSES)
        return [(other, None) for other in others], []
    axes = dict.fromkeys([entry.axis, *_CHOSEN_AXES])
    without = {axis: _arms_without(records, entry, axis) for axis in axes}
    targets, why = _targets(records, target)
    ways: list[_Way] = [
        (entry.model_copy(update={"estimand": f"{axis}_to_target"}), level)
        for level in targets
        for axis in axes
        if axis == entry.axis or not without[axis]
    ]
    why += [
        f"{AXES[axis][1]}: {' and '.join(arms)} {'spends' if len(arms) == 1 else 'spend'} none"
        for axis, arms in without.items()
        if arms and axis != entry.axis
    ]
    return ways, why


def _targets(records: Records, target: Target) -> tuple[list[Target], list[str]]:
    """The target and easier ones, except those that a run meets at its start."""
    if target.value <= 0:
        return [target], [f"easier targets than {target.label}: defined for positive values only"]
    first = records.curves.sort_values("update", kind="stable").groupby(["arm", "seed"]).head(1)
    start = first[target.metric].to_numpy(dtype=float, na_value=math.nan)
    easier = [_easier(target, factor) for factor in _EASIER]
    kept = [level for level in easier if level == target or not level.met(start).any()]
    gone = [level.label for level in easier if level not in kept]
    return kept, [f"{label}: a run meets it before the first update" for label in gone]


def _easier(target: Target, factor: float) -> Target:
    """The target with another value, from the same side."""
    if target.is_upward:
        return target.model_copy(update={"above": target.value / factor})
    return target.model_copy(update={"below": target.value * factor})


def _arms_without(records: Records, entry: Comparison, axis: str) -> list[str]:
    """The arms of an entry that spend nothing on an axis, as Adam computes no products."""
    most = most_spent(records, axis)
    return [arm for arm in (entry.candidate, entry.baseline) if not most.get(arm, 0.0) > 0]


def _made(
    records: Records,
    tests: Sequence[HypothesisTest],
    index: int,
    ways: Sequence[_Way],
    question: str,
) -> Iterator[AnalysisChoice]:
    """Every way with every margin, judged among the other tests as they are."""
    declared_test = tests[index]
    margins = dict.fromkeys([declared_test.entry.margin, *CHOSEN_MARGINS])
    for entry, target in ways:
        made = test(records, entry, target)
        for margin in margins:
            chosen = made.at_margin(margin)
            family = [*tests[:index], chosen, *tests[index + 1 :]]
            judged = judge_one(family, index, records.alpha)
            declared = (entry.estimand, target, margin) == (
                declared_test.entry.estimand, declared_test.target, declared_test.entry.margin
            )  # fmt: skip
            yield AnalysisChoice(
                question=question,
                name=entry.name,
                target=target.label if target else "",
                measure=unit_of(entry.estimand),
                margin=math.nan if margin is None else margin,
                is_declared=declared,
                ratio=math.exp(made.effect.mean) if made.pairs.are_ratios else math.nan,
                p_holm=judged.p_holm,
                pairs=made.effect.n,
                planned=len(made.pairs),
                verdict=judged.verdict,
            )


def _of_two_arms(records: Records, entry: Comparison) -> Records:
    """The records of only the two arms of an entry, which its tests read."""
    sides = (entry.candidate, entry.baseline)
    runs = records.runs[records.runs["arm"].isin(sides)]
    return replace(records, runs=runs, curves=records.curves[records.curves["arm"].isin(sides)])

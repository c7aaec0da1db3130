"""Before any time is spent: are evaluations fine enough for the margin of `equivalent`?

A hit at update U that is evaluated every k updates was reached at U - k + 1 at the earliest. Two
costs that are recorded alike lie within a margin m of each other, wherever they were, if

    U / (U - k + 1) ≤ m,   that is   U ≥ (k - 1) m / (m - 1)

With smaller costs arms cannot be called equivalent, however many seeds there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdhf.records import Comparison, PlannedArm, Records, Target, tests_of
from bdhf.stats.observations.targets import observe_targets

#: Without finished runs a target is taken to be reached within this share of the budget.
_EXPECTED = 0.5

#: Whole numbers of updates are not missed by so little, relative to them.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Coarse:
    """A test whose evaluations are too far apart for its margin."""

    name: str
    target: str  # in words
    margin: float
    every: int  # updates
    least: int  # updates from which on costs can be equivalent
    expected: int  # updates that its runs take
    source: str  # of the expected: "half of the budget", or "the median of 12 finished runs"
    fine: int  # updates between evaluations that are fine enough for the expected cost


def too_coarse(
    comparisons: Sequence[Comparison],
    targets: Sequence[Target],
    arms: Sequence[PlannedArm],
    finished: Records | None = None,
) -> tuple[Coarse, ...]:
    """Find the tests of a plan that cannot end in `equivalent` for the costs that are expected.

    Expected is the median of the hits of `finished` runs, or else half of a budget of updates; a
    test of which neither is known is left out.
    """
    planned = {arm.label: arm for arm in arms}
    tests = []
    for entry, target in tests_of(comparisons, targets):
        sides = [planned[arm] for arm in (entry.candidate, entry.baseline) if arm in planned]
        if target is None or entry.margin is None or not sides:
            continue
        every = max(arm.evaluate_every for arm in sides)
        expected, source = _expected(sides, target, finished)
        share = (entry.margin - 1) / entry.margin
        least = math.ceil((every - 1) / share * (1 - _ROUNDING))
        if every > 1 and not math.isnan(expected) and least > expected:
            fine = 1 + math.floor(expected * share * (1 + _ROUNDING))
            tests.append(Coarse(entry.name, target.label, entry.margin, every, least,
                                round(expected), source, fine))  # fmt: skip
    return tuple(tests)


def _expected(
    sides: Sequence[PlannedArm], target: Target, finished: Records | None
) -> tuple[float, str]:
    """Updates to target that the runs of these arms take, and from what that is known."""
    if finished is not None and target.metric in finished.curves:
        labels = [arm.label for arm in sides]
        runs = finished.runs[finished.runs["arm"].isin(labels)]
        observed = observe_targets(runs, finished.curves, target)
        hits = observed.loc[observed["reached"], "time"].to_numpy(dtype=float)
        if len(hits):
            return float(np.median(hits)), f"the median of {len(hits)} finished runs"
    limits = [arm.budget.updates for arm in sides if arm.budget.updates is not None]
    return (_EXPECTED * min(limits), "half of the budget") if limits else (math.nan, "")

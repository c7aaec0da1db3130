"""Before the runs: are evaluations fine enough for the margin of `equivalent`?

With evaluations every k updates, a hit recorded at U was reached at U - k + 1 at the earliest. Two
equal recorded costs lie within a margin m of each other in any case, if

    U / (U - k + 1) ≤ m,   that is   U ≥ (k - 1) m / (m - 1)

With smaller costs, no number of seeds can show equivalence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bdhf.records import Comparison, PlannedArm, Records, Target, tests_of
from bdhf.stats.observations.targets import observe_targets

#: Share of the budget at which hits are expected, without finished runs.
_EXPECTED = 0.5

#: Relative tolerance for rounding to whole numbers of updates.
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
    """Find the tests of a plan that cannot end in `equivalent` at the expected costs.

    The expected cost is the median hit of `finished` runs, or half of a budget of updates; a test
    with neither is left out.
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
    """Expected updates to target of these arms, and their source."""
    if finished is not None and target.metric in finished.curves:
        labels = [arm.label for arm in sides]
        runs = finished.runs[finished.runs["arm"].isin(labels)]
        observed = observe_targets(runs, finished.curves, target)
        hits = observed.loc[observed["reached"], "time"].to_numpy(dtype=float)
        if len(hits):
            return float(np.median(hits)), f"the median of {len(hits)} finished runs"
    limits = [arm.budget.updates for arm in sides if arm.budget.updates is not None]
    return (_EXPECTED * min(limits), "half of the budget") if limits else (math.nan, "")

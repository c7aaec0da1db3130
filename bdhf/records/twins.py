"""Comparisons of a run with itself: two arms that share their run on every seed.

Arms with equivalent settings share their runs. Their pairs tie by construction and are
uninformative: such comparisons are not tests, and no correction counts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bdhf.records.comparison import Comparison


def twins_among(
    comparisons: Sequence[Comparison], cells: Iterable[tuple[Any, Any, Any]]
) -> tuple[Comparison, ...]:
    """The comparisons whose arms have the same run on every common seed.

    `cells`: the arm, the seed and the run id of every planned cell. Arms without a common seed are
    not twins.
    """
    ids: dict[str, dict[int, str]] = {}
    for arm, seed, run_id in cells if comparisons else ():
        ids.setdefault(arm, {})[seed] = run_id
    return tuple(
        entry
        for entry in comparisons
        if _are_one(ids.get(entry.candidate, {}), ids.get(entry.baseline, {}))
    )


def _are_one(candidate: dict[int, str], baseline: dict[int, str]) -> bool:
    """Whether the run ids of two arms, by seed, are the same where both have one."""
    shared = candidate.keys() & baseline.keys()
    return bool(shared) and all(candidate[seed] == baseline[seed] for seed in shared)

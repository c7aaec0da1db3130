"""The caveat that runs ended above the loss that they began with, though they are done."""

from __future__ import annotations

from bdhf.records import Comparison, Records, rises
from bdhf.stats.observations.pairs import Pairs
from bdhf.text.formatting import plain_count


def risen(pairs: Pairs, entry: Comparison, records: Records) -> tuple[str, ...]:
    """Say of every arm how many runs of its complete pairs did, and the worst of them."""
    flags = []
    arms = entry.candidate, entry.baseline
    for arm, side in zip(arms, pairs.complete.sides, strict=True):
        runs = records.runs[records.runs["run_id"].isin(side["run_id"])]
        seen = rises(runs[runs["arm"] == arm], records.curves)
        if seen:
            worst = max(seen.values(), key=lambda rise: rise.last)
            flags.append(
                f"{len(seen)} of {plain_count(len(side), 'run')} of {arm} ended above the loss "
                f"before the first update ({'at worst ' if len(seen) > 1 else ''}{worst})"
            )
    return tuple(flags)

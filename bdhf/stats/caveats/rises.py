"""The caveat that runs with status `done` ended above their initial loss."""

from __future__ import annotations

from bdhf.records import Comparison, Records, rises
from bdhf.stats.observations.pairs import Pairs
from bdhf.text.formatting import plain_count


def risen(pairs: Pairs, entry: Comparison, records: Records) -> tuple[str, ...]:
    """Count them per arm, over complete pairs, and name the worst one."""
    flags = []
    arms = entry.candidate, entry.baseline
    for arm, side in zip(arms, pairs.complete.sides, strict=True):
        runs = records.runs[records.runs["run_id"].isin(side["run_id"])]
        risen_runs = rises(runs[runs["arm"] == arm], records.curves)
        if risen_runs:
            worst = max(risen_runs.values(), key=lambda rise: rise.last)
            prefix = "at worst " if len(risen_runs) > 1 else ""
            flags.append(
                f"{len(risen_runs)} of {plain_count(len(side), 'run')} of {arm} ended above the "
                f"loss before the first update ({prefix}{worst})"
            )
    return tuple(flags)

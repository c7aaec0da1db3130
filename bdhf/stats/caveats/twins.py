"""What is said of arms that are the same runs: as a whole, or on some of their seeds."""

from __future__ import annotations

from collections.abc import Sequence

from bdhf.records import Comparison, Records
from bdhf.text.formatting import plain_count


def not_compared(entries: Sequence[Comparison]) -> tuple[str, ...]:
    """Say of comparisons of a run with itself that they are not made, in the order of the spec.

    >>> not_compared([Comparison(name="a vs b", candidate="a", baseline="b")])[0]
    'a vs b: not compared, since a and b are the same runs: a run says nothing against itself'
    """
    return tuple(
        f"{entry.name}: not compared, since {entry.candidate} and {entry.baseline} are the same "
        "runs: a run says nothing against itself"
        for entry in entries
    )


def shared_runs(records: Records, entry: Comparison) -> tuple[str, ...]:
    """Count the seeds on which two arms that are compared have one run: they are no pairs."""
    runs = records.runs[records.runs["arm"].isin((entry.candidate, entry.baseline))]
    arms = runs.groupby(["seed", "run_id"])["arm"].nunique()
    shared = int((arms > 1).sum())
    if not shared:
        return ()
    verb, them = ("is", "it is no pair") if shared == 1 else ("are", "they are no pairs")
    return (
        f"{plain_count(shared, 'seed')} {verb} one run in both arms, which says nothing against "
        f"itself: {them}",
    )

"""Caveats on arms that share runs: on all of their seeds, or on some of them."""

from __future__ import annotations

from collections.abc import Sequence

from bdhf.records import Comparison, Records
from bdhf.text.formatting import plain_count


def not_compared(entries: Sequence[Comparison]) -> tuple[str, ...]:
    """Report the comparisons of a run with itself, which are not made, in the order of the spec.

    >>> not_compared([Comparison(name="a vs b", candidate="a", baseline="b")])[0]
    'a vs b: not compared, since a and b are the same runs'
    """
    return tuple(
        f"{entry.name}: not compared, since {entry.candidate} and {entry.baseline} are the same "
        "runs"
        for entry in entries
    )


def shared_runs(records: Records, entry: Comparison) -> tuple[str, ...]:
    """Count the seeds on which two compared arms share one run: they are not pairs."""
    runs = records.runs[records.runs["arm"].isin((entry.candidate, entry.baseline))]
    arms = runs.groupby(["seed", "run_id"])["arm"].nunique()
    shared = int((arms > 1).sum())
    if not shared:
        return ()
    rest = (
        "has the same run in both arms and is not a pair"
        if shared == 1
        else "have the same run in both arms and are not pairs"
    )
    return (f"{plain_count(shared, 'seed')} {rest}",)

"""The caveat that a verdict depends on costs that are unknown, or known only within bounds."""

from __future__ import annotations

from collections.abc import Mapping

from bdhf.records import Comparison
from bdhf.stats.observations.pairs import Pairs
from bdhf.stats.result import Verdict
from bdhf.stats.text.sentences import OF_EVALUATIONS, OF_OTHERS
from bdhf.text.formatting import cost

#: First words of the flags of verdicts that costs of their own runs could change.
OF_MISSING_PAIRS = "The verdict depends on the missing pairs"
OF_DIVERGED_RUNS = "The verdict depends on the cost of a diverged run"


def overturned(
    pairs: Pairs,
    entry: Comparison,
    observed: Verdict,
    bounds: Mapping[str, Verdict],
    others: Verdict,
) -> tuple[str, ...]:
    """Report the verdicts with the uncertain runs at their `best` and at their `worst`.

    `others` is the verdict that the uncertain runs of other tests allow, where its own change
    nothing.
    """
    if all(verdict is observed for verdict in bounds.values()):
        return (
            f"{OF_OTHERS} through Holm's correction: {observed} with their observed p, {others} "
            "with the largest p that their costs allow",
        )
    cases = (
        f"{bounds['best']} in the best case for {entry.candidate}, {bounds['worst']} in the worst"
    )
    if pairs.evaluations_differ:
        return (f"{OF_EVALUATIONS}{_or_on(pairs)}: {observed} as recorded, {cases}",)
    if len(pairs) == len(pairs.complete):
        return (
            f"{OF_DIVERGED_RUNS}, which is at least the largest cost observed and at most "
            f"{cost(pairs.horizon.value)}: {observed} at the upper bound, {cases}",
        )
    if _is_guessed(pairs):
        return (
            f"{OF_MISSING_PAIRS}, or on the cost of a diverged run: {observed} without missing "
            f"pairs and with diverged runs at the upper bound, {cases}",
        )
    return (f"{OF_MISSING_PAIRS}: {observed} without them, {cases}",)


def _or_on(pairs: Pairs) -> str:
    """What else makes costs uncertain."""
    return (", or on the missing pairs" if len(pairs.complete) < len(pairs) else "") + (
        ", or on the cost of a diverged run" if _is_guessed(pairs) else ""
    )


def _is_guessed(pairs: Pairs) -> bool:
    """Whether the cost of a diverged run is only bounded."""
    return any(
        bool((side["cost"].notna() & (side["least"] < side["most"])).any()) for side in pairs.sides
    )

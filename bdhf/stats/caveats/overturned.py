"""Say of a verdict what could change it: costs that are not known, or only between two ends."""

from __future__ import annotations

from collections.abc import Mapping

from bdhf.records import Comparison
from bdhf.stats.observations.pairs import Pairs
from bdhf.stats.result import Verdict
from bdhf.stats.text.sentences import OF_EVALUATIONS, OF_OTHERS
from bdhf.text.formatting import cost


def overturned(
    pairs: Pairs,
    entry: Comparison,
    observed: Verdict,
    bounds: Mapping[str, Verdict],
    others: Verdict,
) -> tuple[str, ...]:
    """Say what the verdict would be with the uncertain runs as `best` and as `worst`.

    `others` is what it may be by those of other tests, where its own change nothing.
    """
    if all(verdict is observed for verdict in bounds.values()):
        return (
            f"{OF_OTHERS}, whose p Holm counts: {observed} as they are, {others} with the largest "
            "that their costs allow",
        )
    if pairs.evaluations_differ:
        return (
            f"{OF_EVALUATIONS}{_or_on(pairs)}: {observed} as recorded, {bounds['best']} at the "
            f"best for {entry.candidate}, {bounds['worst']} at the worst",
        )
    if len(pairs) == len(pairs.complete):
        return (
            "The verdict hangs on what a diverged run counts as, which is no less than the largest "
            f"cost seen and no more than {cost(pairs.horizon.value)}: {observed} at the most, "
            f"{bounds['best']} at the best for {entry.candidate}, {bounds['worst']} at the worst",
        )
    ends = f"at their best for {entry.candidate}, {bounds['worst']} at their worst"
    if _is_guessed(pairs):
        return (
            "The verdict hangs on the missing pairs, or on what a diverged run counts as: "
            f"{observed} without the missing and with the diverged at the most, {bounds['best']} "
            f"with both {ends}",
        )
    return (
        f"The verdict hangs on the missing pairs: {observed} without them, {bounds['best']} with "
        f"them {ends}",
    )


def _or_on(pairs: Pairs) -> str:
    """What else leaves costs open."""
    return (", or on the missing pairs" if len(pairs.complete) < len(pairs) else "") + (
        ", or on what a diverged run counts as" if _is_guessed(pairs) else ""
    )


def _is_guessed(pairs: Pairs) -> bool:
    """Whether a diverged run may count as something else."""
    return any(
        bool((side["cost"].notna() & (side["least"] < side["most"])).any()) for side in pairs.sides
    )

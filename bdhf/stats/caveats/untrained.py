"""Caveats on runs that met a target before their first update: their cost is uninformative."""

from __future__ import annotations

from bdhf.records import Comparison, Records, Target
from bdhf.stats.observations.pairs import Pairs
from bdhf.stats.observations.targets import observe_targets
from bdhf.text.formatting import plain_count


def met_before_training(
    records: Records, entry: Comparison, target: Target | None, pairs: Pairs
) -> tuple[str, ...]:
    """Count such runs per arm, and report how pairs of two such runs are treated.

    `pairs` are those of the entry on the target. Counts are over the complete ones.
    """
    complete = pairs.complete
    if target is None or not any((side["cost"] <= 0).any() for side in complete.sides):
        return ()
    arms = entry.candidate, entry.baseline
    starts = [_at_start(records, arm, target) for arm in arms]
    counts = []
    for arm, start, side in zip(arms, starts, complete.sides, strict=True):
        if k := int(side.index.isin(start).sum()):
            runs = plain_count(len(side), "run")
            counts.append(f"{k} of {runs} of {arm} met the target before the first update")
    both = int((complete.candidate.index.isin(starts[0]) & complete.both_free).sum())
    return (*counts, *_ties(both, len(complete), entry))


def _at_start(records: Records, arm: str, target: Target) -> list[int]:
    """The seeds of the runs of an arm that met the target at update 0."""
    observed = observe_targets(records.runs[records.runs["arm"] == arm], records.curves, target)
    early = observed["reached"] & (observed["time"] <= 0)
    return [int(seed) for seed in observed.loc[early, "seed"]]


def _ties(both: int, pairs: int, entry: Comparison) -> tuple[str, ...]:
    """Report that pairs of such runs are no evidence of equivalence."""
    if both and both == pairs:
        return (
            "Every run met the target before the first update, so the pairs are no evidence of a "
            "difference or of equivalence: choose a target that requires training",
        )
    if not both or entry.margin is None:
        return ()
    ties, them = ("ties", "it") if both == 1 else ("tie", "them")
    return (
        f"{plain_count(both, 'pair')} met the target before the first update on both sides and "
        f"{ties} regardless of the arms: the equivalence test excludes {them}",
    )

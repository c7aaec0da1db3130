"""Caveats of a comparison, in short sentences with their numbers.

Each function checks for one caveat and returns a tuple of sentences, empty where it does not apply.
Counts per arm are over the complete pairs, from which the estimate is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from bdhf.records import AXES, Budget, Comparison, Status, unit_of
from bdhf.stats.inference.equivalence import LEAST_HITS
from bdhf.stats.inference.paired import SignFlip, pairs_needed, smallest_p
from bdhf.stats.observations.pairs import Pairs
from bdhf.stats.observations.targets import OUTCOMES
from bdhf.stats.result import Verdict
from bdhf.text.formatting import cost, percent, plain_count


def missing_pairs(pairs: Pairs, entry: Comparison) -> tuple[str, ...]:
    """Count the missing pairs by reason."""
    missing = len(pairs) - len(pairs.complete)
    if not missing:
        return ()
    reasons = [
        f"{n} {reason} in {arm}"
        for arm, runs in zip(_arms(entry), pairs.sides, strict=True)
        for reason, n in _reasons(runs, unit_of(entry.estimand)).items()
    ]
    verb = "is" if missing == 1 else "are"
    return (f"{missing} of {plain_count(len(pairs), 'pair')} {verb} missing: {', '.join(reasons)}",)


def too_few_pairs(untied: int, pairs: int, alpha: float, tests: int) -> tuple[str, ...]:
    """Report that no outcome of so many untied pairs could pass the first step of Holm.

    >>> too_few_pairs(5, 8, alpha=0.05, tests=1)[0]
    'With 5 untied pairs p is at least 0.0625; p ≤ 0.05 requires 6'
    """
    level = alpha / tests
    if smallest_p(untied) <= level:
        return ()
    step = f", the first step of Holm over {tests} tests," if tests > 1 else ""
    required = f"p ≤ {level:.3g}{step} requires {pairs_needed(level)}"
    if not untied:
        cause = "All pairs tie" if pairs else "There is no pair"
        return (f"{cause}, so p is 1; {required} untied pairs",)
    return (
        f"With {plain_count(untied, 'untied pair')} p is at least {smallest_p(untied):.3g}; "
        f"{required}",
    )


def cost_flags(pairs: Pairs, entry: Comparison, budget: Budget) -> tuple[str, ...]:
    """Count the costs of each arm that are not those of a plain hit, with what they count as."""
    unit, tau = AXES[entry.axis][1], cost(pairs.horizon.value)
    return (
        *_horizon(pairs, entry, budget),
        *_per_arm(
            pairs, entry, _missed, f"did not reach the target within {tau} {unit}: {{each}} {tau}"
        ),
        *_per_arm(pairs, entry, _diverged, "diverged, which is a miss even after a hit"),
        *_ended_early(pairs, entry),
        *_per_arm(pairs, entry, _failed_later, "reached the target before failing, which is a hit"),
        *_per_arm(pairs, entry, _free, f"cost 0 {unit}: {{each}} {cost(pairs.floor)} in the ratio"),
    )


def shared_machine(pairs: Pairs, entry: Comparison, environments: pd.DataFrame) -> tuple[str, ...]:
    """For seconds, count the runs that shared their machine with other runs of the ablation.

    `environments` is that of the records; runs without a recorded `concurrent` are left out.
    """
    if entry.estimand != "seconds_to_target" or "concurrent" not in environments:
        return ()
    concurrent = environments.set_index("run_id")["concurrent"]

    def shared(runs: pd.DataFrame) -> pd.Series[bool]:
        return runs["run_id"].map(concurrent) > 1

    most = max(runs["run_id"].map(concurrent).max() for runs in pairs.complete.sides)
    predicate = f"shared the machine with others, up to {most:.0f} at once"
    counts = _per_arm(pairs, entry, shared, predicate)
    advice = "Seconds depend on the load of the machine: use `bdhf run SPEC --workers 1` for timing"
    return (*counts, advice) if counts else ()


def margin(
    entry: Comparison,
    verdict: Verdict,
    effect: SignFlip,
    hits: tuple[int, int],
    pairs: Pairs,
    p_holm: float,
    alpha: float,
) -> tuple[str, ...]:
    """Explain how the margin relates to the verdict."""
    if entry.margin is None:
        return ()
    if not pairs.are_ratios:
        return (f"The margin needs ratios, but not every {unit_of(entry.estimand)} is positive",)
    if verdict in (Verdict.BETTER, Verdict.WORSE):
        limit = math.log(entry.margin)
        small = -limit <= effect.low and effect.high <= limit
        text = f"The difference is small: its interval lies within the margin of {entry.margin:g}×"
        return (text,) if small else ()
    short = [
        f"{arm}: {k} of {effect.n}"
        for arm, k in zip(_arms(entry), hits, strict=True)
        if k < LEAST_HITS * effect.n
    ]
    if verdict is Verdict.UNDECIDED and p_holm <= alpha and short:
        required = "reach the target" if entry.is_to_target else "not diverge"
        return (
            *_excluded(pairs, entry),
            f"Not called equivalent: at least {percent(LEAST_HITS)} of the runs of both arms must "
            f"{required} ({', '.join(short)})",
        )
    return _excluded(pairs, entry)


def loss_flags(pairs: Pairs, entry: Comparison, budget: Budget) -> tuple[str, ...]:
    """Count the losses of each arm that are not those of a run up to the budget."""
    unit = AXES[budget.axis][1]

    def early(runs: pd.DataFrame) -> pd.Series[bool]:
        return ~_diverged(runs) & (runs["time"] < budget.limit * (1 - 1e-9))

    what = (
        "losses are averaged up to the earliest such end"
        if entry.estimand == "area_under_curve"
        else "losses cover only the part that was run"
    )
    return (
        *_per_arm(pairs, entry, early, f"ended before the budget of {cost(budget.limit)} {unit}: "
                  f"{what} (`stop: at_budget` runs all of it)"),
        *_per_arm(pairs, entry, _diverged, "diverged: {each} its initial loss"),
    )  # fmt: skip


def evaluation_interval(updates: int) -> tuple[str, ...]:
    """Report how late a hit can be recorded.

    >>> evaluation_interval(5)[0]
    'Hits may be recorded up to 4 updates late: evaluations are 5 updates apart'
    """
    if updates <= 1:
        return ()
    return (
        f"Hits may be recorded up to {plain_count(updates - 1, 'update')} late: evaluations are "
        f"{updates} updates apart",
    )


def _excluded(pairs: Pairs, entry: Comparison) -> tuple[str, ...]:
    """Count the pairs that the equivalence test excludes."""
    k = int(pairs.complete.both_miss.sum())
    if not k:
        return ()
    what = "missed" if entry.is_to_target else "diverged"
    ties, them = ("ties", "it") if k == 1 else ("tie", "them")
    return (
        f"{plain_count(k, 'pair')} {what} on both sides and {ties} regardless of the arms: the "
        f"equivalence test excludes {them}",
    )


def _horizon(pairs: Pairs, entry: Comparison, budget: Budget) -> tuple[str, ...]:
    """Report where costs are restricted on an axis that the budget does not limit."""
    cause = f"The budget limits {AXES[budget.axis][1]}, not {AXES[entry.axis][1]}"
    tau = cost(pairs.horizon.value)
    if pairs.horizon.source == "first miss":
        return (f"{cause}: costs are restricted at {tau}, where the first run without a hit ended",)
    if pairs.horizon.source == "slowest pace":
        return (
            f"{cause}: a diverged run counts as {tau}, the budget at the slowest pace of its arm",
        )
    return ()


def _ended_early(pairs: Pairs, entry: Comparison) -> tuple[str, ...]:
    """Count the misses that count as the budget although they ended before it."""
    limit = pairs.horizon.value
    if pairs.horizon.source != "budget":
        return ()

    def early(runs: pd.DataFrame) -> pd.Series[bool]:
        return _missed(runs) & ~_diverged(runs) & (runs["time"] < limit * (1 - 1e-9))

    unit = AXES[entry.axis][1]
    predicate = f"ended without a hit before the budget of {cost(limit)} {unit}"
    return _per_arm(pairs, entry, early, predicate)


def _arms(entry: Comparison) -> tuple[str, str]:
    return entry.candidate, entry.baseline


def _missed(runs: pd.DataFrame) -> pd.Series[bool]:
    return ~runs["hit"].astype(bool)


def _diverged(runs: pd.DataFrame) -> pd.Series[bool]:
    return runs["status"] == Status.DIVERGED.value


def _failed_later(runs: pd.DataFrame) -> pd.Series[bool]:
    return runs["hit"].astype(bool) & ~runs["status"].isin(OUTCOMES)


def _free(runs: pd.DataFrame) -> pd.Series[bool]:
    return runs["cost"] <= 0


def _per_arm(
    pairs: Pairs,
    entry: Comparison,
    which: Callable[[pd.DataFrame], pd.Series[bool]],
    predicate: str,
) -> tuple[str, ...]:
    """Write `k of n runs of ARM PREDICATE` for each arm with k > 0."""
    flags = []
    for arm, runs in zip(_arms(entry), pairs.complete.sides, strict=True):
        k = int(which(runs).sum())
        if k:
            words = predicate.format(each="it counts as" if k == 1 else "each counts as")
            flags.append(f"{k} of {plain_count(len(runs), 'run')} of {arm} {words}")
    return tuple(flags)


def _reasons(runs: pd.DataFrame, unit: str) -> dict[str, int]:
    """Count the missing runs of one side by status, in words: most first, then by name."""
    status = runs.loc[runs["cost"].isna(), "status"]
    words = status.where(~status.isin(OUTCOMES), f"without recorded {unit}")
    words = words.where(runs.loc[words.index, "note"] == "", runs["note"])
    counted = {str(reason): int(n) for reason, n in words.value_counts().items()}
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))

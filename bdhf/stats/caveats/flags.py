"""What a reader must know beside a comparison's number, in short sentences that name numbers.

Each function looks for one caveat and returns a tuple of sentences, empty where it does not apply.
Counts per arm are over the complete pairs, which are the ones that the number is made of.
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
    """Count the pairs that are missing, and say why."""
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
    """Say that no outcome of so many untied pairs could pass the first step of Holm.

    >>> too_few_pairs(5, 8, alpha=0.05, tests=1)[0]
    '5 untied pairs give no p below 0.0625; p ≤ 0.05 takes 6'
    """
    level = alpha / tests
    if smallest_p(untied) <= level:
        return ()
    asked = f", the first step of Holm over {tests} tests," if tests > 1 else ""
    if not pairs:
        return (
            f"There is no pair, so p is 1; p ≤ {level:.3g}{asked} takes {pairs_needed(level)} "
            "that differ",
        )
    if not untied:
        return (
            f"No pair differs, so p is 1; p ≤ {level:.3g}{asked} takes {pairs_needed(level)} that "
            "differ",
        )
    return (
        f"{plain_count(untied, 'untied pair')} {'gives' if untied == 1 else 'give'} no p below "
        f"{smallest_p(untied):.3g}; p ≤ {level:.3g}{asked} takes {pairs_needed(level)}",
    )


def cost_flags(pairs: Pairs, entry: Comparison, budget: Budget) -> tuple[str, ...]:
    """Say of every arm how many costs are not those of a plain hit, and what they count as."""
    unit, tau = AXES[entry.axis][1], cost(pairs.horizon.value)
    return (
        *_horizon(pairs, entry, budget),
        *_per_arm(
            pairs, entry, _missed, f"did not reach the target within {tau} {unit}: {{each}} {tau}"
        ),
        *_per_arm(pairs, entry, _diverged, "diverged, which is a miss whatever came before"),
        *_ended_early(pairs, entry),
        *_per_arm(
            pairs, entry, _failed_later, "reached the target and failed later, which is a hit"
        ),
        *_per_arm(pairs, entry, _free, f"cost 0 {unit}: in the ratio {{each}} {cost(pairs.floor)}"),
    )


def shared_machine(pairs: Pairs, entry: Comparison, environments: pd.DataFrame) -> tuple[str, ...]:
    """Say of seconds how many runs were timed beside others of the ablation, on one machine.

    `environments` is that of the records; runs that did not count their company are left out.
    """
    if entry.estimand != "seconds_to_target" or "concurrent" not in environments:
        return ()
    company = environments.set_index("run_id")["concurrent"]

    def shared(runs: pd.DataFrame) -> pd.Series[bool]:
        return runs["run_id"].map(company) > 1

    most = max(runs["run_id"].map(company).max() for runs in pairs.complete.sides)
    said = f"shared the machine with others, up to {most:.0f} at once"
    told = _per_arm(pairs, entry, shared, said)
    advice = "Seconds depend on what else ran there: `bdhf run SPEC --workers 1` is for timing"
    return (*told, advice) if told else ()


def margin(
    entry: Comparison,
    verdict: Verdict,
    effect: SignFlip,
    hits: tuple[int, int],
    pairs: Pairs,
    p_holm: float,
    alpha: float,
) -> tuple[str, ...]:
    """Say how the margin of an entry and its verdict go together, where a reader may stumble."""
    if entry.margin is None:
        return ()
    if not pairs.are_ratios:
        return (f"Not every {unit_of(entry.estimand)} is above 0: there is no ratio for a margin",)
    if verdict in (Verdict.BETTER, Verdict.WORSE):
        limit = math.log(entry.margin)
        small = -limit <= effect.low and effect.high <= limit
        return (
            (f"A difference, but a small one: the interval lies within the margin of "
             f"{entry.margin:g}×",) if small else ()
        )  # fmt: skip
    short = [
        f"{arm} has {k} of {effect.n}"
        for arm, k in zip(_arms(entry), hits, strict=True)
        if k < LEAST_HITS * effect.n
    ]
    if verdict is Verdict.UNDECIDED and p_holm <= alpha and short:
        where = "at the target" if entry.is_to_target else "that did not diverge"
        return (
            *_say_nothing(pairs, entry),
            f"Not called equivalent: that takes {percent(LEAST_HITS)} of the runs of both arms "
            f"{where}, and {' and '.join(short)}",
        )
    return _say_nothing(pairs, entry)


def loss_flags(pairs: Pairs, entry: Comparison, budget: Budget) -> tuple[str, ...]:
    """Say of every arm how many losses are not those of a run that went on to the budget."""
    unit = AXES[budget.axis][1]

    def early(runs: pd.DataFrame) -> pd.Series[bool]:
        return ~_diverged(runs) & (runs["time"] < budget.limit * (1 - 1e-9))

    what = (
        "losses are averaged up to the first such end"
        if entry.estimand == "area_under_curve"
        else "its loss is that of its part"
    )
    return (
        *_per_arm(pairs, entry, early, f"ended before the budget of {cost(budget.limit)} {unit}: "
                  f"{what} (`stop: at_budget` goes on)"),
        *_per_arm(pairs, entry, _diverged, "diverged: {each} the loss that it began with"),
    )  # fmt: skip


def evaluation_interval(updates: int) -> tuple[str, ...]:
    """Say how late a hit can be recorded.

    >>> evaluation_interval(5)[0]
    'A target may be reached up to 4 updates before it is recorded: evaluations are every 5 updates'
    """
    if updates <= 1:
        return ()
    return (
        f"A target may be reached up to {plain_count(updates - 1, 'update')} before it is "
        f"recorded: evaluations are every {updates} updates",
    )


def _say_nothing(pairs: Pairs, entry: Comparison) -> tuple[str, ...]:
    """Count the pairs that the test of equivalence leaves out."""
    k = int(pairs.complete.both_miss.sum())
    if not k:
        return ()
    what = "missed" if entry.is_to_target else "diverged"
    ties, them = ("ties", "it") if k == 1 else ("tie", "them")
    return (
        f"{plain_count(k, 'pair')} {what} on both sides and {ties} whatever the arms are worth: "
        f"the test of equivalence leaves {them} out",
    )


def _horizon(pairs: Pairs, entry: Comparison, budget: Budget) -> tuple[str, ...]:
    """Say where costs are restricted when the budget does not."""
    cause = f"The budget limits {AXES[budget.axis][1]}, not {AXES[entry.axis][1]}"
    tau = cost(pairs.horizon.value)
    if pairs.horizon.source == "first miss":
        return (f"{cause}: costs count up to {tau}, where the first run that missed ended",)
    if pairs.horizon.source == "slowest pace":
        return (
            f"{cause}: a diverged run counts as {tau}, the budget at the slowest pace of its arm",
        )
    return ()


def _ended_early(pairs: Pairs, entry: Comparison) -> tuple[str, ...]:
    """Count the misses that count as the budget though they were not watched up to it."""
    limit = pairs.horizon.value
    if pairs.horizon.source != "budget":
        return ()

    def early(runs: pd.DataFrame) -> pd.Series[bool]:
        return _missed(runs) & ~_diverged(runs) & (runs["time"] < limit * (1 - 1e-9))

    unit = AXES[entry.axis][1]
    said = f"ended without a hit before the budget of {cost(limit)} {unit}"
    return _per_arm(pairs, entry, early, said)


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
    pairs: Pairs, entry: Comparison, which: Callable[[pd.DataFrame], pd.Series[bool]], said: str
) -> tuple[str, ...]:
    """Write `k of n runs of ARM SAID` for each arm with k > 0."""
    flags = []
    for arm, runs in zip(_arms(entry), pairs.complete.sides, strict=True):
        k = int(which(runs).sum())
        if k:
            words = said.format(each="it counts as" if k == 1 else "each counts as")
            flags.append(f"{k} of {plain_count(len(runs), 'run')} of {arm} {words}")
    return tuple(flags)


def _reasons(runs: pd.DataFrame, unit: str) -> dict[str, int]:
    """Count the missing runs of one side by status, in words: most first, then by name."""
    status = runs.loc[runs["cost"].isna(), "status"]
    words = status.where(~status.isin(OUTCOMES), f"without recorded {unit}")
    words = words.where(runs.loc[words.index, "note"] == "", runs["note"])
    counted = {str(reason): int(n) for reason, n in words.value_counts().items()}
    return dict(sorted(counted.items(), key=lambda found: (-found[1], found[0])))

"""Caveats on costs that are known to their ends only: of missing runs, and between evaluations.

As those of `flags`: a tuple of sentences, empty where there is nothing to say.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bdhf.records import AXES, Budget, Comparison, Status
from bdhf.stats.inference.equivalence import tost
from bdhf.stats.observations.pairs import Pairs
from bdhf.stats.result import Verdict
from bdhf.text.formatting import cost, p_in_a_sentence, ratio


def missing_costs(pairs: Pairs, entry: Comparison, budget: Budget) -> tuple[str, ...]:
    """Say of an axis that the budget does not limit what the missing runs may have cost."""
    ends = pd.concat([runs[runs["cost"].isna()] for runs in pairs.sides])
    if pairs.horizon.source == "budget" or ends.empty:
        return ()
    least, most = float(ends["least"].min()), float(ends["most"].max())
    unit = AXES[entry.axis][1]
    if math.isinf(most):
        is_known = ends.loc[np.isinf(ends["most"]), "slowest"].notna().all()
        why = (
            "it timed out before an evaluation told its pace"
            if is_known
            else f"no run of its arm tells what the budget costs in {unit}"
        )
        return (f"A missing run may have cost any number of {unit}: {why}",)
    if least == most:
        return (
            f"A missing run counts as {cost(most)} {unit}, which it had spent without a hit, or "
            "which end the costs of all runs",
        )
    gave_up = entry.axis == "seconds" and (ends["status"] == Status.TIMEOUT.value).any()
    timed_out = ", or the limit of wall-clock after a time-out if that is more" if gave_up else ""
    return (
        f"A missing run counts as {cost(least)} to {cost(most)} {unit}: at least what it had "
        f"spent, at most the {AXES[budget.axis][1]} of the budget at the slowest pace of its "
        f"arm{timed_out}",
    )


def coarse(pairs: Pairs, entry: Comparison, p: float, alpha: float) -> tuple[str, ...]:
    """Say that costs within the margin may differ by more: evaluations leave too much open.

    `p` is that of equivalence, over all costs that the evaluations leave open.
    """
    if entry.margin is None or not pairs.are_ratios or not p > alpha:
        return ()
    says_something = ~pairs.complete.says_nothing
    recorded = tost(pairs.log_ratios()[says_something], entry.margin).p
    if recorded > alpha:
        return ()
    return (
        f"Not called equivalent: evaluations leave open when a target was reached, and the costs "
        f"lie within {entry.margin:g}× as they were recorded "
        f"(p {p_in_a_sentence(recorded, alpha)}) but not wherever they may have been "
        f"(p {p_in_a_sentence(p, alpha)})",
    )


def unequal(pairs: Pairs, entry: Comparison, observed: Verdict) -> tuple[str, ...]:
    """Say that better or worse may be one of evaluations that cost one arm more than the other.

    Recorded costs of arms that are alike are exchangeable only where these cost them the same.
    """
    if observed not in (Verdict.BETTER, Verdict.WORSE) or not pairs.are_ratios:
        return ()
    low, high = (float(end.mean()) for end in pairs.box())
    crosses = high >= 0 if observed is Verdict.BETTER else low <= 0
    if not crosses or not pairs.evaluations_differ:
        return ()
    late = pairs.late
    means = f"{cost(late[0])} in {entry.candidate} and {cost(late[1])} in {entry.baseline}"
    return (
        f"Evaluations cost the arms differently: a target may be reached up to {means} (means, in "
        f"{AXES[entry.axis][1]}) before it is recorded, and the ratio may be anything from "
        f"{ratio(math.exp(low))} to {ratio(math.exp(high))} by that alone",
    )

"""Caveats on costs with only a lower and an upper bound: missing runs, and between evaluations.

Like `flags`, each function returns a tuple of sentences, empty where its caveat does not apply.
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
    """Bound the costs of missing runs on an axis that the budget does not limit."""
    ends = pd.concat([runs[runs["cost"].isna()] for runs in pairs.sides])
    if pairs.horizon.source == "budget" or ends.empty:
        return ()
    least, most = float(ends["least"].min()), float(ends["most"].max())
    unit = AXES[entry.axis][1]
    if math.isinf(most):
        has_pace = ends.loc[np.isinf(ends["most"]), "slowest"].notna().all()
        why = (
            "it timed out before an evaluation recorded its pace"
            if has_pace
            else "no run of its arm recorded a pace"
        )
        return (f"The cost of a missing run in {unit} has no upper bound: {why}",)
    if least == most:
        return (
            f"A missing run counts as {cost(most)} {unit}: it spent that much without a hit, or "
            "the costs of all runs are restricted there",
        )
    gave_up = entry.axis == "seconds" and (ends["status"] == Status.TIMEOUT.value).any()
    timed_out = ", or the wall-clock limit if it timed out and that is larger" if gave_up else ""
    return (
        f"A missing run counts as {cost(least)} to {cost(most)} {unit}: at least what it spent, at "
        f"most the {AXES[budget.axis][1]} of the budget at the slowest pace of its arm{timed_out}",
    )


def coarse(pairs: Pairs, entry: Comparison, p: float, alpha: float) -> tuple[str, ...]:
    """Report that recorded costs are equivalent, but not all costs that the evaluations allow.

    `p` is that of equivalence, over all these costs.
    """
    if entry.margin is None or not pairs.are_ratios or not p > alpha:
        return ()
    informative = ~pairs.complete.uninformative
    recorded = tost(pairs.log_ratios()[informative], entry.margin).p
    if recorded > alpha:
        return ()
    return (
        f"Not called equivalent: costs are equivalent within {entry.margin:g}× as recorded "
        f"(p {p_in_a_sentence(recorded, alpha)}), but not for all hits that the evaluations allow "
        f"(p {p_in_a_sentence(p, alpha)})",
    )


def unequal(pairs: Pairs, entry: Comparison, observed: Verdict) -> tuple[str, ...]:
    """Report that better or worse may be due to evaluation intervals of unequal cost.

    Recorded costs of identical arms are exchangeable only where the intervals cost both the same.
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
        f"Evaluation intervals cost the arms differently: hits may be recorded late by up to "
        f"{means} (means, in {AXES[entry.axis][1]}), which alone allows ratios from "
        f"{ratio(math.exp(low))} to {ratio(math.exp(high))}",
    )

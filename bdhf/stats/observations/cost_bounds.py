"""Bounds on the cost of a run without an outcome, between which a verdict must hold.

    on the budget's axis      [smallest cost observed, budget]
    on another axis           [what it spent, budget × slowest pace of its arm]
    seconds, after a time-out the same, and the upper end no lower than `safety.seconds`

A pace is a run's cost on the axis ÷ its cost on the budget's axis, both at its end; the slowest
pace is the largest. Without a run that has a pace, the upper bound of an arm is infinite. It is
infinite too for seconds of a run that timed out before it recorded any, because that run was slower
than the others. `safety.seconds` are of wall-clock, which includes evaluation, so they are no lower
bound of seconds of training.
Where a miss restricts the costs of all runs (`restriction`), it restricts these bounds too. A loss
lies between the smallest one observed and the largest initial one, which is that of diverged runs.

A diverged run never reaches the target. Where no other run limits the costs, it counts as the
budget at the slowest pace, and at least as the largest cost observed: a verdict must hold for both.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bdhf.records import Budget, Status, Target
from bdhf.stats.observations.restriction import Horizon, horizon, restrict
from bdhf.stats.observations.targets import observe_targets, spent_at_end


def restricted(
    runs: pd.DataFrame, curves: pd.DataFrame, target: Target, axis: str, budget: Budget
) -> tuple[pd.DataFrame, Horizon]:
    """Observe these runs and restrict their costs, with the columns of `restriction.restrict`.

    `runs` are those of the compared arms only, with the budget that they share. `earliest` is at
    most the cost, and equal to it for a run that never reached the target.
    """
    observed = observe_targets(runs, curves, target, axis)
    slowest: pd.Series[float] | float = np.nan  # not used on the budget's axis
    if axis != budget.axis:
        slowest = slowest_cost(observed, spent_at_end(runs, curves, budget.axis), budget.limit)
    observed = observed.assign(slowest=slowest)
    limit = horizon(observed, axis, budget)
    table = restrict(observed, limit)
    earliest = table["earliest"].where(table["reached"], table["cost"])  # wherever a miss ended
    return table.assign(earliest=earliest.clip(upper=table["cost"])), limit


def slowest_cost(
    observed: pd.DataFrame, progress: pd.Series[float], limit: float
) -> pd.Series[float]:
    """The cost of the whole budget at the slowest pace of each run's arm; NaN without a pace.

    `observed` comes from `targets.observe_targets`; `progress`, by its rows, is the cost of a run
    on the budget's axis, and `limit` the budget there.

    >>> observed = pd.DataFrame({"arm": ["hf", "hf", "sgd"], "spent": [10.0, 30.0, 0.0]})
    >>> slowest_cost(observed, pd.Series([100.0, 200.0, 0.0]), limit=300).tolist()
    [45.0, 45.0, nan]
    """
    pace = observed["spent"] / progress.where(progress > 0)
    return limit * pace.groupby(observed["arm"]).transform("max")


def with_ends(
    table: pd.DataFrame, horizon: Horizon, *, worst: float, timeout: float
) -> pd.DataFrame:
    """Add `least` and `most`, in units of the axis, to the restricted costs of paired runs.

    `table` has a row per run of both arms, with the columns `cost, status, spent, slowest`. `worst`
    is the largest value of a missing run on the budget's axis or as a loss; `timeout` is the limit
    in seconds after which runs were stopped, 0 on another axis. Both bounds of a run with an
    outcome are its cost.
    """
    seen, missing = table["cost"], table["cost"].isna()
    if horizon.source in ("budget", "loss"):
        least = seen.mask(missing, seen.min())
        most = seen.mask(missing, np.fmax(worst, seen.max()))
        return table.assign(least=least, most=most)
    ends = _off_the_budget(table, horizon, timeout)
    least, most = (seen.mask(missing, ends[name]) for name in ("least", "most"))
    if horizon.source == "slowest pace":
        diverged = ~missing & (table["status"] == Status.DIVERGED.value)
        least = least.mask(diverged, seen.mask(diverged, table["spent"]).max())
    return table.assign(least=least, most=most)


def _off_the_budget(table: pd.DataFrame, horizon: Horizon, timeout: float) -> pd.DataFrame:
    """Bounds on the cost at which every run would have ended."""
    least = table["spent"].fillna(0.0)
    timed_out = (table["status"] == Status.TIMEOUT.value) & (timeout > 0)
    slowest = table["slowest"].mask(timed_out & (least == 0)).fillna(np.inf)
    most = np.fmax(np.fmax(slowest, least), timed_out * timeout)
    ends = pd.DataFrame({"least": least, "most": most})
    return ends.clip(upper=horizon.value) if horizon.source == "first miss" else ends

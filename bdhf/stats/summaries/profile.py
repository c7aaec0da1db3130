"""Performance profiles: the share of instances that a solver solves within a factor of the best.

    r_{p,s} = c_{p,s} / min_s c_{p,s}        ρ_s(r) = |{p : r_{p,s} ≤ r}| / |{p}|

c is the cost of solver s on instance p, infinite where the target is missed; an instance is a
problem with a seed (Dolan and Moré, 2002). ρ_s(1) is the share on which s is the best, and the end
of its line the share that it solves at all. Instances that no solver solves count.

A profile depends on its solvers: two of them can change order when a third is removed (Gould and
Scott, 2016).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bdhf.records import Records
from bdhf.stats.summaries.costs import by_instance, costs

COLUMNS = ("target", "arm", "ratio", "share", "instances", "left_out")


def performance_profiles(records: Records) -> pd.DataFrame:
    """The profile of every solver for every target, on the budget's axis.

    Returns the steps `target` (in words), `arm` (the solver), `ratio` (from 1), `share`,
    `instances` and `left_out`, the number of instances in which some solver has no outcome. A
    solver without any outcome is left out itself. Empty below two solvers.

    Raises ValueError for a target whose metric the curves do not have.
    """
    records = records.in_order()
    parts = [of_costs(costs(records, t)).assign(target=t.label) for t in records.targets]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)] if parts else _empty()


def of_costs(table: pd.DataFrame) -> pd.DataFrame:
    """The steps of one target: `arm, ratio, share, instances, left_out`.

    `table` has the columns `problem, solver, seed, cost, hit` of `costs.costs`.

    >>> table = pd.DataFrame({"problem": "", "solver": ["a", "b"] * 2, "seed": [0, 0, 1, 1],
    ...                       "cost": [1.0, 2.0, 5.0, 5.0], "hit": [True, True, True, False]})
    >>> of_costs(table)[["arm", "ratio", "share"]]
      arm  ratio  share
    0   a    1.0    1.0
    1   b    1.0    0.0
    2   b    2.0    0.5
    """
    cells, left_out = instances(table)
    if cells.shape[1] < 2 or cells.empty:
        return pd.DataFrame()
    best = cells.min(axis=1)
    ratios = cells.div(best.where(np.isfinite(best), 1.0), axis=0)
    parts = [_steps(ratios[s].to_numpy(float)).assign(arm=str(s)) for s in ratios.columns]
    return pd.concat(parts, ignore_index=True).assign(instances=len(cells), left_out=left_out)


def instances(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The costs of whole instances, a column per solver, inf for a miss; and how many are not."""
    has = table.groupby("solver", sort=False)["cost"].transform("count") > 0
    observed = table[has]
    cost = observed["cost"].where(observed["hit"] | observed["cost"].isna(), np.inf)
    cells = by_instance(observed.assign(cost=cost))
    whole = cells.notna().all(axis="columns")
    return cells[whole], int((~whole).sum())


def _steps(ratios: np.ndarray) -> pd.DataFrame:
    """Where the share of one solver rises, from a ratio of 1 on."""
    finite = np.sort(ratios[np.isfinite(ratios)])
    steps = np.unique(np.append(finite, 1.0))
    share = np.searchsorted(finite, steps, side="right") / len(ratios)
    return pd.DataFrame({"ratio": steps, "share": share})


def _empty() -> pd.DataFrame:
    return pd.DataFrame(columns=list(COLUMNS))

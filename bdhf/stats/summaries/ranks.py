"""Ranks over problems: Friedman's test, and Nemenyi's critical difference of mean ranks.

    value_{p,s} = mean over seeds of log c_{p,s}      c the cost restricted at the budget
    CD = q_α √(k (k + 1) / (6 N))                     k solvers, N problems

Mean ranks that differ by less than CD do not differ significantly (Friedman, 1937; Nemenyi, 1963;
Demšar, 2006). q_α is the quantile of the studentized range for infinitely many degrees of freedom,
divided by √2. Below five problems or three solvers the test has too little power to be shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from bdhf.records import Records, Target
from bdhf.stats.summaries.costs import by_instance, costs

LEAST_PROBLEMS, LEAST_SOLVERS = 5, 3


@dataclass(frozen=True)
class Ranks:
    """The mean rank of every solver over the problems of an ablation, the best first."""

    target: str  # in words
    solvers: tuple[str, ...]
    mean_ranks: tuple[float, ...]  # 1 is the best
    problems: int
    left_out: int  # problems without a seed on which every solver has an outcome
    statistic: float  # Friedman's chi-squared; 0 where all solvers tie on every problem
    p: float
    alpha: float
    critical_difference: float
    groups: tuple[tuple[int, int], ...]  # first and last of solvers that do not differ


def mean_ranks(records: Records, target: Target) -> Ranks | None:
    """Rank the solvers on every problem of the grid; None below 5 problems or 3 solvers.

    A problem's value is the mean over the seeds on which every solver has an outcome.

    Raises ValueError for a target whose metric the curves do not have.
    """
    records = records.in_order()
    table = costs(records, target)
    values, left_out = mean_log_costs(table)
    if len(values) < LEAST_PROBLEMS or values.shape[1] < LEAST_SOLVERS:
        return None
    mean = stats.rankdata(values, axis=1).mean(axis=0)
    order = np.argsort(mean, kind="stable")
    statistic, p = friedman(values)
    width = critical_difference(len(order), len(values), records.alpha)
    return Ranks(
        target=target.label,
        solvers=tuple(str(values.columns[column]) for column in order),
        mean_ranks=tuple(float(mean[column]) for column in order),
        problems=len(values),
        left_out=left_out,
        statistic=statistic,
        p=p,
        alpha=records.alpha,
        critical_difference=width,
        groups=_groups(mean[order], width),
    )


def mean_log_costs(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Mean log cost per problem, a column per solver; and the number of problems without one."""
    cells = by_instance(table.assign(cost=np.log(table["cost"].astype(float))))
    means = cells.dropna().groupby("problem", sort=False).mean().round(12)  # sums in any order tie
    return means, int(table["problem"].nunique() - len(means))


def friedman(values: ArrayLike) -> tuple[float, float]:
    """Friedman's chi-squared and its p; rows are problems, columns solvers.

    >>> friedman([[1, 2, 3]] * 6)[0]
    12.0
    """
    table = np.asarray(values, dtype=float)  # (problems, solvers)
    if (table == table[:, :1]).all():
        return 0.0, 1.0
    outcome = stats.friedmanchisquare(*table.T)
    return float(outcome.statistic), float(outcome.pvalue)


def critical_difference(solvers: int, problems: int, alpha: float) -> float:
    """The smallest difference of mean ranks that Nemenyi's test calls significant.

    >>> round(critical_difference(4, 6 * 20, 0.05), 4)  # q / 6 of Demšar's table 5
    0.4282
    """
    q = float(stats.studentized_range.ppf(1 - alpha, solvers, np.inf)) / math.sqrt(2)
    return q * math.sqrt(solvers * (solvers + 1) / (6 * problems))


def _groups(mean: np.ndarray, width: float) -> tuple[tuple[int, int], ...]:
    """The longest ranges of sorted mean ranks within the critical difference."""
    stretches: list[tuple[int, int]] = []
    for first in range(len(mean)):
        last = int(np.flatnonzero(mean - mean[first] < width)[-1])
        if last > first and (not stretches or last > stretches[-1][1]):
            stretches.append((first, last))
    return tuple(stretches)

"""The verdict against the tuning budget: would k trials per arm give the same one as all N?

The best of k trials, drawn from the N of an arm with replacement, has a distribution in closed
form: with values v_(1) ≤ … ≤ v_(N)

    P(best ≥ v_(i)) = ((N - i + 1) / N)^k
    V_k = E[best] = Σ_i v_(i) (P(best ≥ v_(i)) - P(best ≥ v_(i+1)))

(Dodge et al., 2019, section 3, there for the largest). Two arms are compared at the same drawn
trials, that is at the same positions of their searches: with a_i, b_i the values of trial i

    P(best of a ≥ x and best of b ≥ y) = (#{i: a_i ≥ x and b_i ≥ y} / N)^k

gives the share of resamples in which the candidate is ahead, and the ratio of the two bests,
exactly, as the limit of infinitely many resamples.

Trials of an adaptive sampler are not independent draws. The shares measure how the verdict depends
on the number of trials, not the result of another sampler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bdhf.records import Comparison, StudyRecords
from bdhf.stats.result import Verdict
from bdhf.stats.studies.trials import miss_value_of, trial_values

_DIGITS = 12  # of a share: rounding beyond them must not move it across a threshold


@dataclass(frozen=True)
class ExpectedBest:
    """The best of k trials of an arm, for k = 1 … N: its mean, and its quantiles."""

    mean: tuple[float, ...]
    low: tuple[float, ...]  # the quantile alpha / 2
    high: tuple[float, ...]  # the quantile 1 - alpha / 2


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """How often a candidate is ahead of its baseline after k trials of each, for k = 1 … N.

    Ratios are best of the candidate ÷ best of the baseline; NaN where a loss is not positive.
    """

    name: str
    candidate: str  # labels of arms of the study
    baseline: str
    objective: str
    alpha: float
    shares: tuple[float, ...]  # of resamples in which the candidate's best is smaller; ties half
    ratios: tuple[float, ...]  # geometric mean over resamples
    lows: tuple[float, ...]  # quantiles alpha / 2 and 1 - alpha / 2
    highs: tuple[float, ...]
    against_all: tuple[float, ...]  # the same share, against the best of all N of the baseline
    baseline_against_all: tuple[float, ...]  # and of the baseline against all N of the candidate

    @property
    def trials(self) -> int:
        """The number of compared trials of each arm: N."""
        return len(self.shares)

    @property
    def leads(self) -> Verdict:
        """The verdict after all trials; undecided below a share of 1 - alpha of the resamples."""
        for verdict in (Verdict.BETTER, Verdict.WORSE):
            if _agree(self.shares[-1:], verdict, self.alpha)[0]:
                return verdict
        return Verdict.UNDECIDED

    def holds_from(self, verdict: Verdict) -> int | None:
        """The smallest k from which up to N at least 1 - alpha of the resamples agree with it.

        None: there is none, or the verdict is neither better nor worse.
        """
        last = None
        for k in range(self.trials, 0, -1):
            if not _agree(self.shares[k - 1 : k], verdict, self.alpha)[0]:
                break
            last = k
        return last

    @property
    def ahead_of_all(self) -> int | None:
        """The smallest k whose best of the candidate is ahead of the baseline's best of all."""
        return _first(_agree(self.against_all, Verdict.BETTER, self.alpha))

    @property
    def behind_of_all(self) -> int | None:
        """The smallest k whose best of the baseline is ahead of the candidate's best of all."""
        return _first(_agree(self.baseline_against_all, Verdict.BETTER, self.alpha))


def expected_best(values: ArrayLike, alpha: float = 0.05) -> ExpectedBest:
    """The best (least) of k = 1 … N draws from N values, with replacement.

    Raises ValueError for a value that is not finite.

    >>> expected_best([4.0, 2.0]).mean
    (3.0, 2.5)
    """
    v = np.sort(_finite(values))
    tails = _tails(len(v))  # (N, N + 1)
    weights, reached = tails[:, :-1] - tails[:, 1:], 1 - tails[:, 1:]
    low, high = (_quantiles(v, reached, q) for q in (alpha / 2, 1 - alpha / 2))
    return ExpectedBest(_plain(weights @ v), _plain(low), _plain(high))


def ahead(
    entry: Comparison, candidate: ArrayLike, baseline: ArrayLike, alpha: float = 0.05
) -> Ahead:
    """Compare the best of k trials of two arms, at the same drawn trials.

    `candidate`, `baseline`: values of trials 0, 1, … of each; extra trials of the longer one are
    dropped. Raises ValueError where one has none, or a value that is not finite.
    """
    a, b = _finite(candidate), _finite(baseline)
    n = min(len(a), len(b))
    a, b = a[:n], b[:n]
    shares, ratios, lows, highs = zip(*_bests_of_both(a, b, alpha), strict=True)
    return Ahead(
        name=entry.name,
        candidate=entry.candidate,
        baseline=entry.baseline,
        objective=entry.estimand,
        alpha=alpha,
        shares=shares,
        ratios=ratios,
        lows=lows,
        highs=highs,
        against_all=_against(a, b.min()),
        baseline_against_all=_against(b, a.min()),
    )


def against_the_budget(records: StudyRecords) -> tuple[Ahead, ...]:
    """Every comparison of the study's ablation on a tuned objective, in order.

    Without those of another estimand, and those of an arm without a trial.
    """
    arms = {arm.label: arm for arm in records.study.arms}
    leads = []
    for entry in records.study.comparisons:
        sides = [arms[label] for label in (entry.candidate, entry.baseline) if label in arms]
        if entry.estimand in records.study.objectives and len(sides) == 2:
            horizon = min(miss_value_of(records, arm, entry.estimand) for arm in sides)
            a, b = (trial_values(records, arm, entry.estimand, horizon) for arm in sides)
            if len(a) and len(b) and np.isfinite(horizon):
                leads.append(ahead(entry, a, b, records.study.alpha))
    return tuple(leads)


def _tails(n: int) -> NDArray[np.float64]:
    """P(best ≥ v_(i)) of the best of k in row k - 1, for i = 1 … N, and then 0."""
    k = np.arange(1, n + 1)[:, None]
    tails: NDArray[np.float64] = (np.arange(n, -1, -1) / n) ** k
    return tails


def _quantiles(
    v: NDArray[np.float64], reached: NDArray[np.float64], q: float
) -> NDArray[np.float64]:
    """The smallest value with a cumulative probability of at least q, in every row."""
    quantiles: NDArray[np.float64] = v[np.argmax(reached >= q - 10.0**-_DIGITS, axis=1)]
    return quantiles


def _bests_of_both(
    a: NDArray[np.float64], b: NDArray[np.float64], alpha: float
) -> list[tuple[float, float, float, float]]:
    """Share, ratio and its interval for every k."""
    (x, at_x), (y, at_y) = (np.unique(v, return_inverse=True) for v in (a, b))
    counts = np.zeros((len(x) + 1, len(y) + 1))
    np.add.at(counts, (at_x, at_y), 1)
    beyond = counts[::-1, ::-1].cumsum(0).cumsum(1)[::-1, ::-1] / len(a)  # P(a ≥ x, b ≥ y)
    wins = np.where(x[:, None] < y, 1.0, np.where(x[:, None] == y, 0.5, 0.0))
    positive = x[0] > 0 and y[0] > 0
    logs = np.log(x)[:, None] - np.log(y) if positive else np.full(wins.shape, np.nan)
    order = np.argsort(logs, axis=None, kind="stable")
    rows = []
    for k in range(1, len(a) + 1):
        tails = beyond**k
        p = tails[:-1, :-1] - tails[1:, :-1] - tails[:-1, 1:] + tails[1:, 1:]
        reached = p.ravel()[order].cumsum()
        ends = [logs.ravel()[order][_rank(reached, q)] for q in (alpha / 2, 1 - alpha / 2)]
        share = round(float((p * wins).sum()), _DIGITS)
        rows.append((share, math.exp((p * logs).sum()), math.exp(ends[0]), math.exp(ends[1])))
    return rows


def _rank(reached: NDArray[np.float64], q: float) -> int:
    return min(int(np.searchsorted(reached, q - 10.0**-_DIGITS)), len(reached) - 1)


def _against(values: NDArray[np.float64], best: float) -> tuple[float, ...]:
    """The share in which the best of k = 1 … N is smaller than a value; ties half."""
    k = np.arange(1, len(values) + 1)
    above, not_below = float((values > best).mean()), float((values >= best).mean())
    shares = (1 - not_below**k) + (not_below**k - above**k) / 2
    return _plain(shares.round(_DIGITS))


def _agree(shares: tuple[float, ...], verdict: Verdict, alpha: float) -> list[bool]:
    """Whether shares agree with a verdict that the candidate is better, or worse."""
    if verdict is Verdict.BETTER:
        return [share >= round(1 - alpha, _DIGITS) for share in shares]
    return [verdict is Verdict.WORSE and share <= alpha for share in shares]


def _first(agree: list[bool]) -> int | None:
    return agree.index(True) + 1 if True in agree else None


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    flat = np.asarray(values, dtype=float).ravel()
    if not len(flat) or not np.isfinite(flat).all():
        raise ValueError("give at least one value, all finite: a trial that missed costs the "
                         "horizon")  # fmt: skip
    return flat


def _plain(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(values.tolist())

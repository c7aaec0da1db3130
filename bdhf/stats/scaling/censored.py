"""Batch scaling by maximum likelihood: S(B) = S_min (1 + B_crit / B), with censored updates.

    log U = log S_min + log(1 + B_crit / B) + σ ε,   ε ~ N(0, 1)

A run that hits at U adds the density of log U to the likelihood; one that misses up to C adds the
probability of U > C. Without misses this is least squares in log U. The search for B_crit runs
from 1/100 of the smallest batch size to 100 times the largest one. A fit at a limit has no B_crit
(at the lower limit U does not fall with B, at the upper one it falls like 1 / B).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import erfcx, log_ndtr

Floats = NDArray[np.float64]

#: Factor by which the search for B_crit extends beyond the sizes that were run.
_REACH = 100.0

_LEAST_SIZES = 3  # batch sizes with an outcome
_LEAST_HIT = 2  # of these: sizes at which some run hits

_TIGHTEST, _WIDEST = math.log(1e-6), math.log(1e2)  # of log σ
_LOG_ROOT = 0.5 * math.log(2 * math.pi)

_PRECISELY = {"ftol": 1e-13, "gtol": 1e-8}


@dataclass(frozen=True)
class CensoredSample:
    """Runs at several batch sizes, one entry each."""

    size: Floats  # B, in samples
    updates: Floats  # U, or C of a miss
    hit: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if not (self.size > 0).all() or not (self.updates > 0).all():
            raise ValueError("batch sizes and updates: all must be above 0")

    @property
    def is_enough(self) -> bool:
        """Whether there are enough sizes for the fit."""
        sizes, hit = np.unique(self.size), np.unique(self.size[self.hit])
        return len(sizes) >= _LEAST_SIZES and len(hit) >= _LEAST_HIT

    @property
    def limits(self) -> tuple[float, float]:
        """The range of the search for B_crit."""
        return float(self.size.min()) / _REACH, float(self.size.max()) * _REACH

    def take(self, rows: NDArray[np.intp]) -> CensoredSample:
        """Some of the runs, with repetition."""
        return CensoredSample(self.size[rows], self.updates[rows], self.hit[rows])


@dataclass(frozen=True)
class Fit:
    """The most likely parameters."""

    s_min: float  # updates
    b_crit: float  # samples
    sigma: float  # of log U
    at_limit: int  # -1: at the lower limit of B_crit, 1: at the upper one, else 0


def fit(
    sample: CensoredSample, starts: tuple[float, ...] = (), *, limits: tuple[float, float]
) -> Fit:
    """Find the most likely parameters, from several `starts` of B_crit (by default a range).

    Raises ValueError for too few sizes.
    """
    if not sample.is_enough:
        raise ValueError(
            f"batch scaling needs {_LEAST_SIZES} batch sizes, and hits at {_LEAST_HIT} of them"
        )
    low, high = math.log(limits[0]), math.log(limits[1])
    inside = [math.log(start) for start in starts] or np.linspace(low, high, 9)[1:-1].tolist()
    bounds = ((None, None), (low, high), (_TIGHTEST, _WIDEST))
    best = min(
        (
            minimize(
                _loss,
                _start(sample, b),
                args=(sample,),
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                options=_PRECISELY,
            )
            for b in inside
        ),
        key=lambda optimum: float(optimum.fun),
    )
    a, b, s = (float(value) for value in best.x)
    edge = 0.01 * (high - low)
    at_limit = -1 if b < low + edge else 1 if b > high - edge else 0
    return Fit(math.exp(a), math.exp(b), math.exp(s), at_limit)


def fit_at(sample: CensoredSample, b_crit: float) -> Fit:
    """Find the most likely S_min and σ for a fixed B_crit."""
    a, b, s = _start(sample, math.log(b_crit))
    if not sample.hit.all():  # else the start is the maximum of the likelihood
        bounds = ((None, None), (b, b), (_TIGHTEST, _WIDEST))
        result = minimize(
            _loss, (a, b, s), args=(sample,), jac=True, method="L-BFGS-B", bounds=bounds,
            options=_PRECISELY,
        )  # fmt: skip
        a, _, s = (float(value) for value in result.x)
    return Fit(math.exp(a), b_crit, math.exp(s), 0)


def residuals(sample: CensoredSample, fitted: Fit) -> tuple[Floats, Floats]:
    """Slope and minus the curvature of every run's log-likelihood in log S_min ÷ σ.

    The slope of a hit is its standardised residual, and its curvature 1; the slope of a miss is the
    hazard at the updates up to which it was observed.
    """
    rest = np.log(sample.updates) - np.log1p(fitted.b_crit / sample.size) - math.log(fitted.s_min)
    z = rest / fitted.sigma
    hazard = _hazard(z)
    bend = np.clip(hazard * (hazard - z), 0.0, 1.0)
    return np.where(sample.hit, z, hazard), np.where(sample.hit, 1.0, bend)


def _hazard(z: Floats) -> Floats:
    """Density of the normal distribution ÷ the probability beyond z."""
    hazard: Floats = math.sqrt(2 / math.pi) / erfcx(z / math.sqrt(2))
    return hazard


def _start(sample: CensoredSample, b: float) -> tuple[float, float, float]:
    """The maximum of the likelihood at this log B_crit, if every miss were a hit."""
    rest = np.log(sample.updates) - np.log1p(math.exp(b) / sample.size)
    a, spread = float(rest.mean()), float(rest.std())
    return a, b, float(np.clip(math.log(max(spread, 1e-3)), _TIGHTEST, _WIDEST))


def _loss(parameters: Floats, sample: CensoredSample) -> tuple[float, Floats]:
    """Mean -log-likelihood of log U, and its gradient, at (log S_min, log B_crit, log σ)."""
    a, b, s = parameters
    sigma, over = math.exp(s), math.exp(b) / sample.size
    z = (np.log(sample.updates) - a - np.log1p(over)) / sigma
    beyond = log_ndtr(-z)  # log P(U > C)
    hazard = _hazard(z)
    likely = np.where(sample.hit, -0.5 * z**2 - _LOG_ROOT - s, beyond)
    by_mean = np.where(sample.hit, z, hazard) / sigma
    by_scale = np.where(sample.hit, z**2 - 1, z * hazard)
    slope = [by_mean.mean(), (by_mean * over / (1 + over)).mean(), by_scale.mean()]
    return -float(likely.mean()), -np.array(slope)

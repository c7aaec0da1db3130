"""Before the runs: can these comparisons be decided with so many seeds?

    floor   with m tests under Holm the smallest p of n pairs, 2/2ⁿ, must beat α/m
    power   P(better or worse) for a true ratio at the margin, from the spread of a pilot

The spread is that of the spec (`log_ratio_sd`), or that of finished runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bdhf.records import Comparison, PlannedArm, Records, Target, tests_of
from bdhf.stats.compare import compare
from bdhf.stats.inference.coarseness import Coarse, too_coarse
from bdhf.stats.inference.paired import pairs_needed
from bdhf.stats.inference.power import power, seeds_to_decide

#: Finished pairs below which their spread is not used.
_LEAST_PAIRS = 3


@dataclass(frozen=True)
class TestPower:
    """The power of one test at its margin."""

    name: str
    target: str  # in words; "" for a loss
    margin: float
    sd: float  # of the log ratio over seeds
    source: str  # of the spread: "stated", or "6 finished pairs"
    power: float  # with the seeds of the spec, at the first step of Holm
    seeds: float  # for a power of 80 %


@dataclass(frozen=True)
class PowerCheck:
    """What the seeds of a spec can decide."""

    tests: int
    alpha: float
    seeds: int
    needed: int  # seeds below which no test can be decided; 0 without tests
    powers: tuple[TestPower, ...]  # of the tests that have a margin and a known spread
    coarse: tuple[Coarse, ...] = ()  # tests whose evaluations are too far apart for their margin


def power_check(
    comparisons: Sequence[Comparison],
    targets: Sequence[Target],
    *,
    alpha: float,
    seeds: int,
    arms: Sequence[PlannedArm] = (),
    finished: Records | None = None,
) -> PowerCheck:
    """Compute the floor and the power of the tests of an ablation.

    `arms` are those of the plan, with their budgets and evaluation intervals; `finished` are the
    records of finished runs of the same ablation, if any.
    """
    tests = tests_of(comparisons, targets)
    level = alpha / max(len(tests), 1)
    spreads = _observed_spreads(finished)
    powers = []
    for entry, target in tests:
        label = target.label if target else ""
        sd, source = spreads.get((entry.name, label), (math.nan, ""))
        if entry.log_ratio_sd is not None:
            sd, source = entry.log_ratio_sd, "stated"
        if entry.margin is not None and sd > 0:
            effect = math.log(entry.margin)
            powers.append(
                TestPower(
                    name=entry.name,
                    target=label,
                    margin=entry.margin,
                    sd=sd,
                    source=source,
                    power=power(effect, sd, seeds, level),
                    seeds=seeds_to_decide(effect, sd, level),
                )
            )
    return PowerCheck(
        tests=len(tests),
        alpha=alpha,
        seeds=seeds,
        needed=pairs_needed(level) if tests else 0,
        powers=tuple(powers),
        coarse=too_coarse(comparisons, targets, arms, finished),
    )


def _observed_spreads(finished: Records | None) -> dict[tuple[str, str], tuple[float, str]]:
    """The spread of every comparison with enough finished pairs."""
    if finished is None:
        return {}
    return {
        (result.name, result.target): (result.log_ratio_sd, f"{result.pairs} finished pairs")
        for result in compare(finished)
        if result.pairs >= _LEAST_PAIRS and result.log_ratio_sd > 0
    }

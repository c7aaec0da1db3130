"""Whether each target is on the better side of its metric: `below` a loss, `above` an accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from bdhf.experiments.errors import Fault
from bdhf.experiments.parts.tables import problem_of
from bdhf.experiments.spec.schema import Spec
from bdhf.problems import Better, Problem
from bdhf.records import Target
from bdhf.records.columns import METRIC_PREFIXES

#: The better direction of a metric, by whether its target is reached from below.
_BETTER: Mapping[bool, Better] = {False: "lower", True: "higher"}


def directions(problem: Problem) -> dict[str, Better]:
    """Which values are better, for every metric for which the problem says so, and for the loss."""
    metrics = problem.metrics
    return {**(metrics if isinstance(metrics, Mapping) else {}), "loss": "lower"}


def no_directions(problem: Problem) -> str:
    """The invalid directions of a problem's metrics, in words; "": none."""
    wrong = [f"{k}: {v!r}" for k, v in directions(problem).items() if v not in get_args(Better)]
    return f"metrics {', '.join(wrong)}: give 'lower' or 'higher'" if wrong else ""


def wrong_sides(spec: Spec) -> Iterator[Fault]:
    """Targets that no training reaches, or that every run meets before training."""
    better = directions(problem_of(spec.problem))
    for index, target in enumerate(spec.targets):
        key = "above" if target.is_upward else "below"
        direction = better.get(_name(target))
        if direction not in (None, _BETTER[target.is_upward]):
            way_out = "below" if target.is_upward else "above"
            yield Fault(
                ("targets", index, key),
                f"{target.metric} is better when {direction}, so runs meet this target before "
                f"training: write `{way_out}: {target.value:g}`",
                at_key=True,
            )
        elif other := _opposed(target, spec.targets[:index]):
            yield Fault(
                ("targets", index, key),
                f"{target.label} contradicts {other.label}: {_name(target)} is better either when "
                "lower (`below`) or when higher (`above`)",
                at_key=True,
            )


def _opposed(target: Target, others: Sequence[Target]) -> Target | None:
    """Another target of the same metric, on any part, that is reached from the other side."""
    return next(
        (o for o in others if _name(o) == _name(target) and o.is_upward != target.is_upward), None
    )


def _name(target: Target) -> str:
    """The metric without the part on which it is measured."""
    for prefix in METRIC_PREFIXES:
        if target.metric.startswith(prefix):
            return target.metric.removeprefix(prefix)
    return target.metric

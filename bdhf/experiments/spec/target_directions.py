"""Whether targets stand on the side from which training comes: `below` a loss, `above` accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from bdhf.experiments.errors import Fault
from bdhf.experiments.parts.tables import problem_of
from bdhf.experiments.spec.schema import Spec
from bdhf.problems import Direction, Problem
from bdhf.records import Target
from bdhf.records.columns import METRIC_PREFIXES

#: What a metric is better as, by whether its target is reached from below.
_BETTER: Mapping[bool, Direction] = {False: "lower", True: "higher"}


def directions(problem: Problem) -> dict[str, Direction]:
    """Which values are better, of every metric of which the problem says so, and of the loss."""
    metrics = problem.metrics
    return {**(metrics if isinstance(metrics, Mapping) else {}), "loss": "lower"}


def no_directions(problem: Problem) -> str:
    """What a problem's metrics say of a direction that is none, in words; "": nothing."""
    wrong = [f"{k}: {v!r}" for k, v in directions(problem).items() if v not in get_args(Direction)]
    return f"metrics {', '.join(wrong)}: give 'lower' or 'higher'" if wrong else ""


def wrong_sides(spec: Spec) -> Iterator[Fault]:
    """Targets that no training reaches, or that every run has met before it."""
    better = directions(problem_of(spec.problem))
    for index, target in enumerate(spec.targets):
        key = "above" if target.is_upward else "below"
        direction = better.get(_name(target))
        if direction not in (None, _BETTER[target.is_upward]):
            way_out = "below" if target.is_upward else "above"
            yield Fault(
                ("targets", index, key),
                f"{target.metric} is better when {direction}, so this is where runs begin and not "
                f"where they get to: write `{way_out}: {target.value:g}`",
                at_key=True,
            )
        elif other := _opposed(target, spec.targets[:index]):
            yield Fault(
                ("targets", index, key),
                f"{target.label} and {other.label}: {_name(target)} is better either when lower "
                "(`below`) or when higher (`above`), not both",
                at_key=True,
            )


def _opposed(target: Target, others: Sequence[Target]) -> Target | None:
    """Another target of the same metric, on whatever part, that is reached from the other side."""
    return next(
        (o for o in others if _name(o) == _name(target) and o.is_upward != target.is_upward), None
    )


def _name(target: Target) -> str:
    """The metric without the part on which it is measured."""
    for prefix in METRIC_PREFIXES:
        if target.metric.startswith(prefix):
            return target.metric.removeprefix(prefix)
    return target.metric

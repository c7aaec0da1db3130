"""Which cells of a plan are not run, and why: incompatible parts, or too high a cost.

A reason needs the blocks of a model, and sometimes the cost of its products. It is therefore a
separate pass; `plan.expand` gives the cells alone.
"""

from __future__ import annotations

import math
from dataclasses import replace

from bdhf.experiments.parts.compatibility import why_not
from bdhf.experiments.parts.tables import problem_of
from bdhf.experiments.plan import cost
from bdhf.experiments.plan.expand import Plan
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.spec.schema import Safety


def with_skips(plan: Plan, safety: Safety) -> Plan:
    """The plan with a reason in every cell that is not run, the same for all seeds of an arm."""
    runs = {cell.arm: cell.run for cell in plan.cells}
    with cost.models_kept():
        skips = {
            label: why_not(run.optimizer, run.problem)
            or too_many_rows(run)
            or without_sites(run)
            or too_costly(run, safety.gradient_equivalents)
            for label, run in runs.items()
        }
    return replace(plan, cells=tuple(replace(cell, skip=skips[cell.arm]) for cell in plan.cells))


def too_costly(run: RunSpec, limit: float | None) -> str:
    """Why a run would exceed this many gradient equivalents; "" if it would not.

    Only a budget of updates or epochs is checked; the other axes bound the cost themselves.
    """
    updates = _updates(run)
    if limit is None or updates is None:
        return ""
    per_update = cost.arm_cost(run.problem, run.optimizer, run.gradient_batch, run.curvature_batch)
    if per_update * updates <= limit:
        return ""
    total, most = (f"{n:,.0f}" if n >= 100 else f"{n:g}" for n in (per_update * updates, limit))
    return f"estimated at {total} gradient equivalents, above the limit of {most}"


def too_many_rows(run: RunSpec) -> str:
    """Why sample_space would exceed its `max_rows`; "" if it would not."""
    arm = run.optimizer
    if arm["type"] != "block_hf" or arm["solver"]["type"] != "sample_space":
        return ""
    rows = cost.arm_factor_rows(run.problem, arm) * (run.curvature_batch or run.gradient_batch)
    most = arm["solver"]["max_rows"]
    if rows <= most:
        return ""
    return (
        f"sample_space would solve for {rows:,.0f} rows (samples × outputs of the "
        f"curvature batch), above max_rows of {most:,}"
    )


def without_sites(run: RunSpec) -> str:
    """Why the preconditioner cannot use the sites of the model; "" if it can."""
    if run.optimizer["type"] != "block_hf":
        return ""
    return cost.arm_refusal(run.problem, run.optimizer)


def _updates(run: RunSpec) -> int | None:
    """Updates of a run that uses its whole budget; None if the axis does not determine them."""
    if run.budget.epochs is not None:
        samples = problem_of(run.problem).samples
        return math.ceil(run.budget.epochs * samples / run.gradient_batch)
    return run.budget.updates

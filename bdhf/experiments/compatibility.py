"""Which parts do not go together, and which cells would cost too much: reasons not to run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from bdhf.experiments import cost
from bdhf.experiments.build import PARTS, part_of, problem_of
from bdhf.experiments.parts import Resolved, refusals
from bdhf.experiments.schema import Spec
from bdhf.experiments.weightless import block_sizes

#: Says why an arm of `block_hf` cannot be run on a problem; "" if it can.
Rule = Callable[[Resolved, Resolved], str]


@dataclass(frozen=True)
class Never:
    """Types of parts that never go together; None stands for every type."""

    reason: str
    curvature: str | None = None
    partition: str | None = None
    solver: str | None = None

    def __call__(self, arm: Resolved, problem: Resolved) -> str:
        """Give the reason for an arm that has them all."""
        kinds = ("curvature", "partition", "solver")
        wanted = {kind: getattr(self, kind) for kind in kinds if getattr(self, kind) is not None}
        return self.reason if all(arm[k]["type"] == name for k, name in wanted.items()) else ""


def undamped(arm: Resolved, problem: Resolved) -> str:
    """The system of the samples has no solution without damping."""
    damping = arm.get("damping", {})
    zero = damping.get("type") == "constant" and damping["value"] == 0
    is_sample_space = arm["solver"]["type"] == "sample_space"
    return "sample_space needs damping above 0" if zero and is_sample_space else ""


def refused(arm: Resolved, problem: Resolved) -> str:
    """The partition refuses the model, or the solver the blocks or the curvature."""
    if not problem:
        return ""
    may_raise = refusals(arm["partition"]["type"])
    blocks = block_sizes(part_of("partition", arm), problem_of(problem), may_raise)
    if isinstance(blocks, str):
        return blocks
    try:
        part_of("solver", arm).check(blocks, part_of("curvature", arm))
    except refusals(arm["solver"]["type"]) as error:
        return str(error) or type(error).__name__
    return ""


#: THE rules: the first reason counts.
_COMPATIBILITY: tuple[Rule, ...] = (
    Never(
        "sample_space needs a positive semi-definite matrix JᵀHJ; hessian has none: use cg, or ggn",
        curvature="hessian",
        solver="sample_space",
    ),
    undamped,
    refused,
)


#: What a solver asks beside: of the sizes, which only a problem and a batch can tell.
CONDITIONS: Mapping[str, str] = {
    "sample_space": "with damping above 0, and up to `max_rows` rows (samples × outputs of the "
    "curvature batch; samples × draws for a Fisher matrix)",
    "cholesky": "for blocks of up to `max_block` parameters",
}


def why_not(arm: Resolved, problem: Resolved) -> str:
    """Say why an arm cannot be run on a problem; "" if it can."""
    if arm["type"] != "block_hf":
        return ""
    return next((reason for rule in _COMPATIBILITY if (reason := rule(arm, problem))), "")


def triples() -> Iterator[tuple[str, str, str, str]]:
    """Curvature, partition, solver, and why they do not go together at any damping, or ""."""
    kinds = ("curvature", "partition", "solver")
    for names in product(*(PARTS[kind][0] for kind in kinds)):
        parts = {kind: {"type": name} for kind, name in zip(kinds, names, strict=True)}
        curvature, partition, solver = names
        yield curvature, partition, solver, why_not({"type": "block_hf", **parts}, {})


def too_costly(spec: Spec, arm: Resolved) -> str:
    """Say that a run of an arm would exceed `safety.gradient_equivalents`; "" if it would not.

    A budget that is no number of updates says by itself what a run may cost.
    """
    limit, updates = spec.safety.gradient_equivalents, _updates(spec)
    if limit is None or updates is None:
        return ""
    batch = spec.batch
    one = cost.estimate(spec.problem, arm, batch.gradient, batch.curvature_samples)
    if one * updates <= limit:
        return ""
    total, most = (f"{n:,.0f}" if n >= 100 else f"{n:g}" for n in (one * updates, limit))
    return f"estimated at {total} gradient equivalents, above the limit of {most}"


def too_many_rows(spec: Spec, arm: Resolved) -> str:
    """Say that sample_space would solve for more rows than it takes; "" if it would not."""
    if arm["type"] != "block_hf" or arm["solver"]["type"] != "sample_space":
        return ""
    one = cost.factor_rows(spec.problem, arm)
    samples = spec.batch.curvature_samples or spec.batch.gradient
    most = arm["solver"]["max_rows"]
    if one * samples <= most:
        return ""
    return (
        f"sample_space would solve for {one * samples:,.0f} rows (samples × outputs of the "
        f"curvature batch), above max_rows of {most:,}"
    )


def _updates(spec: Spec) -> int | None:
    """Updates of a run that spends its budget; None where only running it can tell."""
    if spec.budget.epochs is not None:
        samples = problem_of(spec.problem).samples
        return math.ceil(spec.budget.epochs * samples / spec.batch.gradient)
    return spec.budget.updates

"""Which parts are incompatible: reasons not to run an arm, at any batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from bdhf.experiments.parts.meta_models import block_sizes, meta_model
from bdhf.experiments.parts.resolve import Resolved, refusals
from bdhf.experiments.parts.tables import PARTS, part_of, problem_of
from bdhf.optim import ModelError
from bdhf.optim.forward.hidden_states import hidden_modules

#: Why an arm of `block_hf` cannot run on a problem; "" if it can.
CompatibilityRule = Callable[[Resolved, Resolved], str]


@dataclass(frozen=True)
class Never:
    """Types of parts that are always incompatible; None stands for every type."""

    reason: str
    curvature: str | None = None
    partition: str | None = None
    solver: str | None = None

    def __call__(self, arm: Resolved, problem: Resolved) -> str:
        """Give the reason for an arm that has all of them."""
        kinds = ("curvature", "partition", "solver")
        wanted = {kind: getattr(self, kind) for kind in kinds if getattr(self, kind) is not None}
        return self.reason if all(arm[k]["type"] == name for k, name in wanted.items()) else ""


def undamped(arm: Resolved, problem: Resolved) -> str:
    """The system of the samples has no solution without damping."""
    damping = arm.get("damping", {})
    if damping.get("type") == "structural":
        damping = damping["damping"]
    zero = damping.get("type") == "constant" and damping["value"] == 0
    is_sample_space = arm["solver"]["type"] == "sample_space"
    return "sample_space needs damping above 0" if zero and is_sample_space else ""


def stateless(arm: Resolved, problem: Resolved) -> str:
    """The model has no hidden states for structural damping."""
    damping = arm.get("damping", {})
    if not problem or damping.get("type") != "structural" or not damping["weight"]:
        return ""
    try:
        hidden_modules(meta_model(problem_of(problem)), damping["modules"])
    except ModelError as error:
        return str(error)
    return ""


def refusal_of(arm: Resolved, problem: Resolved) -> str:
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
_COMPATIBILITY: tuple[CompatibilityRule, ...] = (
    Never(
        "sample_space needs a positive semi-definite matrix JᵀHJ; hessian has none: use cg, or ggn",
        curvature="hessian",
        solver="sample_space",
    ),
    Never(
        "sample_space needs a positive semi-definite matrix JᵀHJ; mixed is none: use cg, or ggn",
        curvature="mixed",
        solver="sample_space",
    ),
    undamped,
    stateless,
    refusal_of,
)


#: Further conditions of solvers, on sizes that depend on the problem and the batch.
CONDITIONS: Mapping[str, str] = {
    "sample_space": "with damping above 0, and up to `max_rows` rows (samples × outputs of the "
    "curvature batch; samples × draws for a Fisher matrix)",
    "cholesky": "for blocks of up to `max_block` parameters",
    "saddle_free": "with memory for `iterations` vectors of all parameters",
}


def why_not(arm: Resolved, problem: Resolved) -> str:
    """Give the reason why an arm cannot run on a problem; "" if it can."""
    if arm["type"] != "block_hf":
        return ""
    return next((reason for rule in _COMPATIBILITY if (reason := rule(arm, problem))), "")


def triples() -> Iterator[tuple[str, str, str, str]]:
    """Curvature, partition, solver, and why they are incompatible at any damping, or ""."""
    kinds = ("curvature", "partition", "solver")
    for names in product(*(PARTS[kind][0] for kind in kinds)):
        parts = {kind: {"type": name} for kind, name in zip(kinds, names, strict=True)}
        curvature, partition, solver = names
        yield curvature, partition, solver, why_not({"type": "block_hf", **parts}, {})

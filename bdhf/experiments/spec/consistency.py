"""Checks across the keys of a spec: names that must exist, sizes that must fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bdhf.experiments.errors import Fault, Keys, unknown
from bdhf.experiments.parts.compatibility import why_not
from bdhf.experiments.parts.tables import problem_of, uses_curvature
from bdhf.experiments.spec.grid import Variant
from bdhf.experiments.spec.schema import Spec
from bdhf.experiments.spec.target_directions import wrong_sides
from bdhf.records import LOSSES


def consistency(spec: Spec) -> list[Fault]:
    """Every contradiction in a resolved spec."""
    return [
        *_batches(spec),
        *_targets(spec),
        *wrong_sides(spec),
        *_comparisons(spec),
        *_budget(spec),
    ]


def consistency_of_all(variants: Sequence[Variant]) -> list[Fault]:
    """Every contradiction between the combinations of a grid, or in a spec without one."""
    return [*_budgets(variants)] if variants[0].picks else [*_compatible(variants[0].spec)]


def _budgets(variants: Sequence[Variant]) -> Iterable[Fault]:
    axes = list(dict.fromkeys(variant.spec.budget.axis for variant in variants))
    if len(axes) > 1:
        others = sorted(variants, key=lambda variant: variant.spec.budget.axis == axes[0])
        paths = [path for variant in others for path in _paths(variant, "budget")]
        message = f"all budgets must have the same axis; got {' and '.join(axes)}"
        yield Fault(paths[0], message, at_key=True)


def _paths(variant: Variant, key: str) -> Iterable[Keys]:
    """Where the grid and `settings` set a key of the spec, or a key in it."""
    yield from (pick.source[:-1] for pick in variant.picks if pick.target[0] == key)
    yield from (setting.path for setting in variant.settings if setting.keys[0] == key)


def _compatible(spec: Spec) -> Iterable[Fault]:
    for name, arm in spec.arms.items():
        reason = why_not(arm, spec.problem)
        if reason:
            yield Fault(("arms", name, "solver"), reason)


def _batches(spec: Spec) -> Iterable[Fault]:
    samples = problem_of(spec.problem).samples
    gradient, curvature = spec.batch.gradient, spec.batch.curvature
    if gradient > samples:
        yield Fault(
            ("batch", "gradient"), f"{gradient} exceeds the {samples} samples of the training data"
        )
    if curvature is None:
        return
    if curvature == 1:
        yield Fault(
            ("batch", "curvature"),
            "1 could mean one sample or the whole batch; omit `curvature` for the whole batch",
        )
    elif curvature >= 1 and curvature != int(curvature):
        yield Fault(
            ("batch", "curvature"),
            f"{curvature} is neither a share of the gradient batch (below 1) nor a whole number",
        )
    elif spec.batch.curvature_samples is not None and not (
        1 <= spec.batch.curvature_samples <= gradient
    ):
        yield Fault(
            ("batch", "curvature"),
            f"{curvature} is not between 1 sample and the {gradient} of the gradient batch",
        )


def _targets(spec: Spec) -> Iterable[Fault]:
    if spec.stop == "at_target" and not spec.targets:
        yield Fault(("stop",), "at_target needs `targets`; or use at_budget")
    names = ("loss", *problem_of(spec.problem).metrics)
    metrics = [f"{part}_{name}" for part in ("val", "train") for name in names]
    for index, target in enumerate(spec.targets):
        if target.metric not in metrics:
            message = unknown("metric", target.metric, metrics)
            yield Fault(("targets", index, "metric"), message)
        if target in spec.targets[:index]:
            yield Fault(("targets", index), f"{target.label} is a duplicate")


def _comparisons(spec: Spec) -> Iterable[Fault]:
    costs = [entry for entry in spec.compare if entry.is_to_target]
    if costs and not spec.targets:
        yield Fault(
            ("compare",),
            f"a comparison of costs to target needs `targets`; {', '.join(LOSSES)} do not",
        )
    seen: set[str] = set()
    for index, entry in enumerate(spec.compare):
        for side in ("candidate", "baseline"):
            if getattr(entry, side) not in spec.arms:
                message = unknown("arm", getattr(entry, side), spec.arms)
                yield Fault(("compare", index, side), message)
        if entry.candidate == entry.baseline:
            yield Fault(("compare", index), f"compares {entry.candidate!r} with itself")
        if entry.name in seen:
            yield Fault(("compare", index, "name"), f"{entry.name!r} is the name of two entries")
        seen.add(entry.name)


def _budget(spec: Spec) -> Iterable[Fault]:
    if spec.budget.axis != "products":
        return
    for name, arm in spec.arms.items():
        if not uses_curvature(arm):
            yield Fault(
                ("budget", "products"),
                f"arm {name!r} uses no curvature products, so its runs would never end; "
                "use gradient_equivalents, updates, epochs or seconds",
            )

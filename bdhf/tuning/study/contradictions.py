"""Contradictions between a study and its ablation: arms, seeds, objectives."""

from __future__ import annotations

from collections.abc import Sequence

from bdhf.experiments.errors import Fault, unknown
from bdhf.experiments.spec.grid import Variant
from bdhf.records import LOSSES, axis_of
from bdhf.tuning.study.objective import horizon_of
from bdhf.tuning.study.schema import StudySpec


def study_contradictions(spec: StudySpec, variants: Sequence[Variant]) -> list[Fault]:
    """Every contradiction between a study and its ablation."""
    return [
        *_wrong_spaces(spec, variants),
        *_wrong_seeds(spec, variants),
        *_wrong_objectives(spec, variants),
        *_wrong_pruner(spec),
    ]


def _wrong_spaces(spec: StudySpec, variants: Sequence[Variant]) -> list[Fault]:
    arms = variants[0].spec.arms
    faults = [
        Fault(("spaces", name), unknown("arm", name, arms), at_key=True)
        for name in spec.spaces
        if name not in arms
    ]
    varied = [pick.axis for pick in variants[0].picks if pick.target[0] == "arms"]
    if varied:
        message = (
            f"its grid varies {', '.join(varied)}, and a study tunes whole arms: make each value "
            "an arm, or search over the values in `spaces`"
        )
        faults.append(Fault(("ablation",), message))
    others = [pick.axis for pick in variants[0].picks if pick.target[0] == "problem"]
    if others:
        message = f"its grid varies {', '.join(others)}: make one study for each problem"
        faults.append(Fault(("ablation",), message))
    return faults


def _wrong_seeds(spec: StudySpec, variants: Sequence[Variant]) -> list[Fault]:
    own, theirs = spec.seeds, variants[0].spec.seeds
    if own.base >= theirs.base + theirs.count or theirs.base >= own.base + own.count:
        return []
    message = (
        f"the ablation is evaluated on seeds {theirs.base} to {theirs.base + theirs.count - 1}, "
        "and settings must not be tuned on them: use "
        f"`base: {theirs.base + theirs.count + 1000}`"
    )
    return [Fault(("seeds",), message)]


def _wrong_objectives(spec: StudySpec, variants: Sequence[Variant]) -> list[Fault]:
    first = variants[0].spec
    faults = []
    for estimand in spec.objectives:
        horizon = horizon_of(estimand, first.budget, first.safety)
        if horizon is None:
            axis = axis_of(estimand)
            limited = dict.fromkeys((first.budget.axis, "seconds"))
            others = " or ".join(f"{name}_to_target" for name in limited)
            message = (
                f"the cost of a miss in {axis} is unknown, because the budget is in "
                f"{first.budget.axis}: give the budget in {axis} (`set: {{budget: {{{axis}: "
                f"…}}}}`), or tune {others}"
            )
            faults.append(Fault(("objective",), message))
        elif horizon == horizon and not first.targets:
            faults.append(Fault(("objective",), f"{estimand} needs `targets` in the ablation"))
    costs = [name for name in spec.objectives if name not in LOSSES]
    if costs and spec.objectives[0] in LOSSES:
        message = f"the first objective selects the best trial: put {costs[0]} before the losses"
        faults.append(Fault(("objective",), message))
    return faults


def _wrong_pruner(spec: StudySpec) -> list[Fault]:
    if len(spec.objectives) > 1 and spec.pruner.type != "none":
        return [Fault(("pruner",), "Optuna prunes for a single objective only: `pruner: none`")]
    return []

"""What a study says that its ablation contradicts: arms, seeds, objectives."""

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
            f"its grid varies {', '.join(varied)}, and a study tunes an arm, not each of its "
            "forms: name them as arms, or search over the values in `spaces`"
        )
        faults.append(Fault(("ablation",), message))
    others = [pick.axis for pick in variants[0].picks if pick.target[0] == "problem"]
    if others:
        message = f"its grid varies {', '.join(others)}: give each problem a study of its own"
        faults.append(Fault(("ablation",), message))
    return faults


def _wrong_seeds(spec: StudySpec, variants: Sequence[Variant]) -> list[Fault]:
    own, theirs = spec.seeds, variants[0].spec.seeds
    if own.base >= theirs.base + theirs.count or theirs.base >= own.base + own.count:
        return []
    message = (
        f"seeds {theirs.base} to {theirs.base + theirs.count - 1} are those that the ablation is "
        f"evaluated on, and settings must not be chosen on them: take `base: "
        f"{theirs.base + theirs.count + 1000}`"
    )
    return [Fault(("seeds",), message)]


def _wrong_objectives(spec: StudySpec, variants: Sequence[Variant]) -> list[Fault]:
    first = variants[0].spec
    faults = []
    for estimand in spec.objectives:
        horizon = horizon_of(estimand, first.budget, first.safety)
        if horizon is None:
            axis = axis_of(estimand)
            known = dict.fromkeys(f"{one}_to_target" for one in (first.budget.axis, "seconds"))
            message = (
                f"what a miss costs in {axis} is not known, since the budget counts "
                f"{first.budget.axis}: give it in {axis} (`set: {{budget: {{{axis}: …}}}}`), or "
                f"tune {' or '.join(known)}"
            )
            faults.append(Fault(("objective",), message))
        elif horizon == horizon and not first.targets:
            faults.append(Fault(("objective",), f"{estimand} needs `targets` in the ablation"))
    costs = [one for one in spec.objectives if one not in LOSSES]
    if costs and spec.objectives[0] in LOSSES:
        message = f"the first decides what is best: put {costs[0]} before the losses"
        faults.append(Fault(("objective",), message))
    return faults


def _wrong_pruner(spec: StudySpec) -> list[Fault]:
    if len(spec.objectives) > 1 and spec.pruner.type != "none":
        return [Fault(("pruner",), "Optuna prunes for one objective only: `pruner: none`")]
    return []

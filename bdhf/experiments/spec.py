"""From a YAML file to a spec that is checked and complete, before anything is run or written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from bdhf.experiments.build import problem_of, resolve_arm, resolve_problem
from bdhf.experiments.consistency import consistency, consistency_of_all
from bdhf.experiments.errors import Fault, Keys, unknown
from bdhf.experiments.grid import Variant, applied, combinations, traced
from bdhf.experiments.parts import Faults, Resolved
from bdhf.experiments.schema import Spec
from bdhf.experiments.source import Source, read
from bdhf.records import Strict

ResolveArm = Callable[[str, Any, Resolved], Resolved]  # name, what is given, problem


def load(file: Path) -> tuple[tuple[Variant, ...], Source]:
    """Read, check and resolve a spec file. Raises SpecError with a line for every fault."""
    source = read(file)
    return variants(source), source


def check(source: Source) -> Spec:
    """Check and resolve a parsed spec; of a grid, its first combination. Raises SpecError."""
    return variants(source)[0].spec


def variants(source: Source) -> tuple[Variant, ...]:
    """Check and resolve a parsed spec with every combination of its grid; without a grid, one.

    Raises SpecError with a line for every fault.
    """
    if not isinstance(source.data, dict):
        raise source.error([Fault((), "a spec is a mapping of keys; start with `schema: 1`")])
    try:
        every = combinations(source.data)
    except Faults as found:
        raise source.error(found.faults) from None
    resolve_once, checked, faults = _remembering(), list[Variant](), list[Fault]()
    for picks in every:
        try:
            spec = _check(applied(source.data, picks), resolve_once)
            checked.append(Variant(picks, spec))
        except Faults as found:
            faults += [traced(fault, picks) for fault in found.faults]
    faults = faults or consistency_of_all(checked)
    if faults:
        raise source.error(dict.fromkeys(faults))
    return tuple(checked)


def _check(data: Mapping[str, Any], resolve_once: ResolveArm) -> Spec:
    """Check and resolve the data of one spec. Raises Faults."""
    try:
        spec = Spec.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise Faults(*(_fault(detail) for detail in error.errors())) from None
    resolved, faults = _resolve(spec, resolve_once)
    faults += consistency(resolved) if not faults else []
    if faults:
        raise Faults(*faults)
    return resolved


def _resolve(spec: Spec, resolve_once: ResolveArm) -> tuple[Spec, list[Fault]]:
    """Write out every default of the problem and the arms; an unknown problem ends it."""
    problem = resolve_problem(spec.problem)
    arms: dict[str, Resolved] = {}
    faults: list[Fault] = []
    for name, given in spec.arms.items():
        try:
            arms[name] = resolve_once(name, given, problem)
        except Faults as found:
            faults += found.faults
    return spec.model_copy(update={"problem": problem, "arms": arms}), faults


def _remembering() -> ResolveArm:
    """A `resolve_arm` that does not try the same arm on the same problem twice."""
    known: dict[str, Resolved] = {}

    def resolved(name: str, given: Any, problem: Resolved) -> Resolved:
        key = json.dumps([name, given, problem])
        if key not in known:
            known[key] = resolve_arm(name, given, problem_of(problem))
        return known[key]

    return resolved


def _fault(detail: Any) -> Fault:
    """A complaint of pydantic in our words."""
    path = tuple(key for key in detail["loc"] if key not in ("int", "float"))
    if detail["type"] == "extra_forbidden":
        return Fault(path, unknown("key", path[-1], _known_at(path[:-1])), at_key=True)
    if detail["type"] == "missing":
        return Fault(path[:-1], f"missing key {path[-1]!r}")
    if detail["type"] == "value_error":
        return Fault(path, str(detail["ctx"]["error"]))
    if detail["type"] == "string_pattern_mismatch":
        message = f"{detail['input']!r} is no name: letters, digits, dots, dashes and underscores"
        keys = tuple(key for key in path if key != "[key]")
        return Fault(keys, message, at_key=keys != path)
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return Fault(path, f"{message}; got {detail['input']!r}")


def _known_at(path: Keys) -> list[str]:
    """The keys that the spec allows at a place."""
    model: Any = Spec
    for key in path:
        if isinstance(key, str):
            model = _alias(model)[key].annotation
        model = next((m for m in (model, *get_args(model)) if _is_model(m)), model)
    return list(_alias(model))


def _alias(model: Any) -> dict[str, Any]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, Strict)

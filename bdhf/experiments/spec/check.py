"""Check the data of specs that differ in little: the combinations of a grid.

A spec consists of its frame (all keys except the problem and the arms), its problem and its arms.
Each is checked once; their consistency is checked once per problem and frame.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from bdhf.experiments.errors import Fault, Faults
from bdhf.experiments.parts.meta_models import meta_model
from bdhf.experiments.parts.problems_and_arms import resolve_arm, resolve_problem
from bdhf.experiments.parts.resolve import Resolved
from bdhf.experiments.parts.tables import problem_of
from bdhf.experiments.parts.user_parts import is_own
from bdhf.experiments.spec.consistency import consistency
from bdhf.experiments.spec.schema import Spec
from bdhf.experiments.spec.target_directions import no_directions
from bdhf.experiments.spec.validation_errors import validation_faults
from bdhf.optim.losses.own import own_parameters
from bdhf.problems import Problem
from bdhf.records import of_what_kind

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Frame:
    """A spec with unresolved problem and arms; or None and its faults."""

    spec: Spec | None
    faults: tuple[Fault, ...]


class Checker:
    """Checks specs and caches the outcomes."""

    def __init__(self) -> None:
        self._frames: dict[str, _Frame] = {}
        self._problems: dict[str, tuple[Resolved, Problem] | Faults] = {}
        self._arms: dict[str, Resolved | Faults] = {}
        self._consistent: dict[str, list[Fault]] = {}

    def check(self, data: Mapping[str, Any]) -> Spec:
        """Check and resolve the data of one spec, without a grid. Raises Faults."""
        key, frame = self._frame(data)
        faults, problem, arms = list(frame.faults), None, dict[str, Resolved]()
        faulty = {fault.path[:2] for fault in faults}
        if ("problem",) not in faulty and "problem" in data:
            try:
                problem = self._problem(_named(data["problem"]))
            except Faults as error:
                faults += error.faults
        arms_data = data.get("arms")
        for name, arm in arms_data.items() if isinstance(arms_data, dict) else ():
            if problem is None or ("arms", name) in faulty:
                continue  # an arm is checked against the problem
            try:
                arms[name] = self._arm(name, _named(arm), problem)
            except Faults as error:
                faults += error.faults
        if faults or frame.spec is None or problem is None:
            raise Faults(*faults)
        spec = frame.spec.model_copy(update={"problem": problem[0], "arms": arms})
        kinds = {name: arm["type"] for name, arm in arms.items()}
        key = json.dumps([key, problem[0], kinds])
        if key not in self._consistent:
            self._consistent[key] = consistency(spec)
        if self._consistent[key]:
            raise Faults(*self._consistent[key])
        return spec

    def _frame(self, data: Mapping[str, Any]) -> tuple[str, _Frame]:
        """Check every key; of the problem and the arms only the type of the value."""
        arms = data.get("arms")
        kinds = {k: type(v).__name__ for k, v in arms.items()} if isinstance(arms, dict) else arms
        key = json.dumps({**data, "arms": kinds, "problem": type(data.get("problem")).__name__})
        if key not in self._frames:
            try:
                spec = Spec.model_validate_json(json.dumps(data), strict=True)
                self._frames[key] = _Frame(spec, ())
            except ValidationError as error:
                self._frames[key] = _Frame(None, validation_faults(error, Spec))
        return key, self._frames[key]

    def _problem(self, data: Any) -> tuple[Resolved, Problem]:
        key = json.dumps(data)
        if key not in self._problems:
            try:
                resolved = resolve_problem(data)
                self._problems[key] = resolved, _tried(resolved)
            except Faults as error:
                self._problems[key] = error
        return _or_raise(self._problems[key])

    def _arm(self, name: str, data: Any, problem: tuple[Resolved, Problem]) -> Resolved:
        key = json.dumps([name, data, problem[0]])
        if key not in self._arms:
            try:
                self._arms[key] = resolve_arm(name, data, problem[1])
            except Faults as error:
                self._arms[key] = error
        return _or_raise(self._arms[key])


def _or_raise(outcome: _T | Faults) -> _T:
    if isinstance(outcome, Faults):
        raise outcome
    return outcome


def _tried(resolved: Resolved) -> Problem:
    """The problem; the attributes of a user's own that specs read are tried. Raises Faults."""
    problem = problem_of(resolved)
    if is_own(resolved["type"]):
        try:
            meta_model(problem)
            _ = problem.samples, list(problem.metrics), list(problem.blocks)
            undirected = no_directions(problem)
            of_loss = own_parameters(problem.loss)
        except Exception as error:  # the code of others may raise anything
            message = f"{resolved['type']} raises {of_what_kind(error)}"
            raise Faults(Fault(("problem",), message)) from None
        if undirected:
            raise Faults(Fault(("problem",), f"{resolved['type']}: {undirected}"))
        if of_loss:
            message = (
                f"the loss of {resolved['type']} has trainable parameters, but an ablation trains "
                "those of the model only: move them into the model, and return from the model what "
                "the loss needs of them"
            )
            raise Faults(Fault(("problem",), message))
    return problem


def _named(part: Any) -> Any:
    """A part as a mapping, also if the spec names it only."""
    return {"type": part} if isinstance(part, str) else part

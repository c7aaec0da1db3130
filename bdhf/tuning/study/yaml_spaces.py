"""Search spaces as YAML has them.

    lr:               {log: [1.0e-4, 0.1]}            log-uniform between the two
    solver.max_iters: {linear: [5, 50], whole: true}  whole numbers
    curvature:        {choice: [ggn, fisher]}         one of several values
    damping:          {choice: {constant: {value: {log: [1.0e-5, 0.1]}},
                                levenberg_marquardt: {initial: {log: [1.0e-3, 10]}}}}

The last dimension is conditional: a part by its type. The space of a type exists only where that
type is chosen (Optuna's define-by-run; Akiba et al., 2019, section 2). Plain values are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError, field_validator

from bdhf.experiments.errors import Fault, Faults, Keys
from bdhf.experiments.spec.validation_errors import validation_faults
from bdhf.experiments.spec.value_words import exactly, in_short
from bdhf.records import Strict
from bdhf.tuning.study.space import Choice, Dimension, Range, default_at


class _Entry(Strict):
    """One dimension as written in YAML."""

    log: list[float] | None = Field(default=None, min_length=2, max_length=2)
    linear: list[float] | None = Field(default=None, min_length=2, max_length=2)
    choice: list[Any] | dict[str, dict[str, Any]] | None = None
    whole: bool = False

    @field_validator("choice", mode="before")
    @classmethod
    def _bare(cls, choice: Any) -> Any:
        """A type without a space needs no braces."""
        if not isinstance(choice, dict):
            return choice
        return {name: {} if inner is None else inner for name, inner in choice.items()}


def space_of(
    entries: Mapping[str, Any], arm: Mapping[str, Any], where: Keys
) -> tuple[Dimension, ...]:
    """The dimensions of a resolved arm. Raises Faults at `where` and below.

    No path may contain another one: the value of the inner one would be ambiguous.
    """
    dimensions, faults = list[Dimension](), list[Fault]()
    for path, entry in entries.items():
        try:
            dimensions.append(_dimension(path, path, entry, (*where, path)))
            default_at(dimensions[-1], arm, (*where, path))
        except Faults as wrong:
            faults += wrong.faults
    for dimension in dimensions:
        faults += [
            Fault((*where, dimension.path), f"{other.path!r} lies within it: search only one", True)
            for other in dimensions
            if other.path.startswith(f"{dimension.path}.")
        ]
    if not entries:
        faults.append(Fault(where, "the space is empty: give dotted paths with ranges or choices"))
    if faults:
        raise Faults(*faults)
    return tuple(dimensions)


def _dimension(path: str, name: str, entry: Any, where: Keys) -> Dimension:
    """One dimension. Raises Faults."""
    try:
        read = _Entry.model_validate(entry)
    except ValidationError as error:
        faults = (
            validation_faults(error, _Entry) if isinstance(entry, dict) else (_no_dimension(entry),)
        )
        raise Faults(*(Fault((*where, *f.path), f.message, f.at_key) for f in faults)) from None
    kinds = [k for k in ("log", "linear", "choice") if getattr(read, k) is not None]
    if len(kinds) != 1:
        raise Faults(Fault((*where, *_no_dimension(entry).path), _no_dimension(entry).message))
    if read.choice is not None:
        return _choice(path, name, read.choice, read.whole, (*where, "choice"))
    low, high = getattr(read, kinds[0])
    wrong = _wrong_range(low, high, kinds[0], read.whole)
    if wrong:
        raise Faults(Fault((*where, kinds[0]), wrong))
    return Range(path, name, low, high, "log" if kinds[0] == "log" else "linear", read.whole)


def _no_dimension(entry: Any) -> Fault:
    example = "for example {log: [1.0e-4, 0.1]}"
    return Fault((), f"give one of log, linear and choice, {example}; got {entry!r}")


def _wrong_range(low: float, high: float, scale: str, whole: bool) -> str:
    if not low < high:
        return f"the first number of a range must be the smaller one; got {low:g} and {high:g}"
    if scale == "log" and low <= 0:
        return f"a logarithmic range must start above 0; got {low:g}: use linear"
    if whole and (low % 1 or high % 1):
        return f"the ends of a range of whole numbers must be whole; got {low:g} and {high:g}"
    return ""


def _choice(path: str, name: str, choices: Any, whole: bool, where: Keys) -> Choice:
    """A choice between values, or between parts with their own spaces. Raises Faults."""
    if whole:
        raise Faults(Fault(where, "`whole` applies to ranges only: remove it", at_key=True))
    if len(choices) < 2 or len({exactly(choice) for choice in choices}) < len(choices):
        raise Faults(Fault(where, "give at least 2 different choices"))
    if isinstance(choices, list):
        values = dict(zip(in_short(choices), choices, strict=True))
        return Choice(path, name, values, dict.fromkeys(values, ()))
    parts, inner = dict[str, Any](), dict[str, tuple[Dimension, ...]]()
    for kind, arguments in choices.items():
        fixed = {key: value for key, value in arguments.items() if not _is_searched(value)}
        parts[kind] = {"type": kind, **fixed}
        inner[kind] = tuple(
            _dimension(f"{path}.{key}", f"{name}.{kind}.{key}", value, (*where, kind, key))
            for key, value in arguments.items()
            if _is_searched(value)
        )
    return Choice(path, name, parts, inner)


def _is_searched(value: Any) -> bool:
    return isinstance(value, dict) and any(key in value for key in ("log", "linear", "choice"))

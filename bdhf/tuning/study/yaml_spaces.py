"""Search spaces as YAML has them.

    lr:               {log: [1.0e-4, 0.1]}            log-uniform between the two
    solver.max_iters: {linear: [5, 50], whole: true}  whole numbers
    curvature:        {choice: [ggn, fisher]}         one of some values
    damping:          {choice: {constant: {value: {log: [1.0e-5, 0.1]}},
                                levenberg_marquardt: {initial: {log: [1.0e-3, 10]}}}}

The last is conditional: a part by its type, each with a space of its own that exists where that
type is chosen (Optuna's define-by-run; Akiba et al., 2019, section 2). A plain value in it is set
as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError, field_validator

from bdhf.experiments.errors import Fault, Faults, Keys
from bdhf.experiments.spec.validation_errors import validation_faults
from bdhf.experiments.spec.value_words import exactly, in_short
from bdhf.records import Strict
from bdhf.tuning.study.space import Choice, Dimension, Range, standing_at


class _Given(Strict):
    """One dimension as YAML has it."""

    log: list[float] | None = Field(default=None, min_length=2, max_length=2)
    linear: list[float] | None = Field(default=None, min_length=2, max_length=2)
    choice: list[Any] | dict[str, dict[str, Any]] | None = None
    whole: bool = False

    @field_validator("choice", mode="before")
    @classmethod
    def _bare(cls, given: Any) -> Any:
        """A type without a space of its own may stand without braces."""
        if not isinstance(given, dict):
            return given
        return {name: {} if inner is None else inner for name, inner in given.items()}


def space_of(
    given: Mapping[str, Any], arm: Mapping[str, Any], place: Keys
) -> tuple[Dimension, ...]:
    """The dimensions of an arm, which is resolved. Raises Faults, at `place` and below.

    Paths may not lead into each other: which of two were to count?
    """
    found, faults = list[Dimension](), list[Fault]()
    for path, inner in given.items():
        try:
            found.append(_dimension(path, path, inner, (*place, path)))
            standing_at(found[-1], arm, (*place, path))
        except Faults as wrong:
            faults += wrong.faults
    for one in found:
        faults += [
            Fault((*place, one.path), f"{other.path!r} leads into it: search one of them", True)
            for other in found
            if other.path.startswith(f"{one.path}.")
        ]
    if not given:
        faults.append(Fault(place, "nothing to search: give dotted paths with ranges or choices"))
    if faults:
        raise Faults(*faults)
    return tuple(found)


def _dimension(path: str, name: str, given: Any, place: Keys) -> Dimension:
    """One dimension. Raises Faults."""
    try:
        read = _Given.model_validate(given)
    except ValidationError as error:
        faults = (
            validation_faults(error, _Given) if isinstance(given, dict) else (_no_dimension(given),)
        )
        raise Faults(*(Fault((*place, *f.path), f.message, f.at_key) for f in faults)) from None
    kinds = [k for k in ("log", "linear", "choice") if getattr(read, k) is not None]
    if len(kinds) != 1:
        raise Faults(Fault((*place, *_no_dimension(given).path), _no_dimension(given).message))
    if read.choice is not None:
        return _choice(path, name, read.choice, read.whole, (*place, "choice"))
    low, high = getattr(read, kinds[0])
    wrong = _wrong_range(low, high, kinds[0], read.whole)
    if wrong:
        raise Faults(Fault((*place, kinds[0]), wrong))
    return Range(path, name, low, high, "log" if kinds[0] == "log" else "linear", read.whole)


def _no_dimension(given: Any) -> Fault:
    example = "as in {log: [1.0e-4, 0.1]}"
    return Fault((), f"give one of log, linear and choice, {example}; got {given!r}")


def _wrong_range(low: float, high: float, scale: str, whole: bool) -> str:
    if not low < high:
        return f"a range goes up from its first number; got {low:g} and {high:g}"
    if scale == "log" and low <= 0:
        return f"a logarithmic range begins above 0; got {low:g}: use linear"
    if whole and (low % 1 or high % 1):
        return f"whole numbers lie between whole numbers; got {low:g} and {high:g}"
    return ""


def _choice(path: str, name: str, given: Any, whole: bool, place: Keys) -> Choice:
    """A choice between values, or between parts that have spaces of their own. Raises Faults."""
    if whole:
        raise Faults(Fault(place, "`whole` is for ranges: leave it out", at_key=True))
    if len(given) < 2 or len({exactly(one) for one in given}) < len(given):
        raise Faults(Fault(place, "give two choices or more that differ"))
    if isinstance(given, list):
        values = dict(zip(in_short(given), given, strict=True))
        return Choice(path, name, values, dict.fromkeys(values, ()))
    parts, inner = dict[str, Any](), dict[str, tuple[Dimension, ...]]()
    for kind, arguments in given.items():
        fixed = {key: value for key, value in arguments.items() if not _is_searched(value)}
        parts[kind] = {"type": kind, **fixed}
        inner[kind] = tuple(
            _dimension(f"{path}.{key}", f"{name}.{kind}.{key}", value, (*place, kind, key))
            for key, value in arguments.items()
            if _is_searched(value)
        )
    return Choice(path, name, parts, inner)


def _is_searched(value: Any) -> bool:
    return isinstance(value, dict) and any(key in value for key in ("log", "linear", "choice"))

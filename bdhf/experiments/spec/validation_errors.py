"""Errors of pydantic as faults: where in the YAML, what is wrong, what is allowed."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import ValidationError

from bdhf.experiments.errors import Fault, Keys, unknown
from bdhf.experiments.spec.schema import keys_in
from bdhf.records import Strict


def validation_faults(error: ValidationError, model: type[Strict]) -> tuple[Fault, ...]:
    """Every fault that a model reports in its data."""
    return tuple(_fault(detail, model) for detail in error.errors())


def _fault(detail: Any, model: type[Strict]) -> Fault:
    path = tuple(key for key in detail["loc"] if key not in ("int", "float"))
    if detail["type"] == "extra_forbidden":
        allowed = _allowed_at(model, path[:-1])
        return Fault(path, unknown("key", path[-1], allowed), at_key=True)
    if detail["type"] == "missing":
        return Fault(path[:-1], f"missing key {path[-1]!r}")
    if detail["type"] == "value_error":
        return Fault(path, str(detail["ctx"]["error"]))
    if detail["type"] == "string_pattern_mismatch":
        message = (
            f"{detail['input']!r} is not a name: use letters, digits, dots, dashes and underscores"
        )
        keys = tuple(key for key in path if key != "[key]")
        return Fault(keys, message, at_key=keys != path)
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return Fault(path, f"{message}; got {detail['input']!r}")


def _allowed_at(model: Any, path: Keys) -> list[str]:
    """The keys that a model allows at a path."""
    for key in path:
        if isinstance(key, str):
            model = keys_in(model)[key].annotation
        model = next((m for m in (model, *get_args(model)) if _is_model(m)), model)
    return list(keys_in(model))


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, Strict)

"""A part of a run out of a table: given by name, or as a mapping with `type` and its arguments.

`resolve` writes every default out, so that two ways to say the same are the same; `make` builds.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from bdhf.experiments.errors import Fault, Keys, unknown

Table = Mapping[str, Callable[..., Any]]
Resolved = dict[str, Any]


#: What a part may raise at arguments that it cannot use.
REFUSALS = (ValueError, TypeError, OverflowError, RuntimeError, MemoryError)


class Faults(Exception):  # noqa: N818 - it carries what is wrong, it does not name one error
    """What is wrong with a piece of a spec."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.faults = faults


def resolve(kind: str, table: Table, given: Any, path: Keys) -> Resolved:
    """Give the part's `type` and all its arguments, defaults included. Raises Faults."""
    if isinstance(given, str):
        given = {"type": given}
    if not isinstance(given, dict) or not isinstance(given.get("type"), str):
        raise Faults(
            Fault(
                path, f"give {kind} by name or as a mapping with `type`; known: {', '.join(table)}"
            )
        )
    name = given["type"]
    if name not in table:
        raise Faults(Fault(_type_path(given, path), unknown(kind, name, table)))
    part = table[name]
    arguments = {key: value for key, value in given.items() if key != "type"}
    fields = {field.name: field for field in dataclasses.fields(part)}  # type: ignore[arg-type]
    faults = [
        Fault((*path, key), unknown(f"key of {name}", key, fields), at_key=True)
        for key in arguments
        if key not in fields
    ]
    faults += [
        Fault(path, f"{name} needs {field.name!r}")
        for field in fields.values()
        if field.name not in arguments and _required(field)
    ]
    if faults:
        raise Faults(*faults)
    _check(part, arguments, path)
    defaults = {f.name: f.default for f in fields.values() if not _required(f)}
    return {"type": name, **_plain(defaults | arguments)}


def make(table: Table, resolved: Resolved) -> Any:
    """Build a part that `resolve` has checked."""
    arguments = {key: value for key, value in resolved.items() if key != "type"}
    return table[resolved["type"]](**arguments)


def _check(part: Callable[..., Any], arguments: dict[str, Any], path: Keys) -> None:
    """Types by the annotations of the part, values by the part itself."""
    hints = get_type_hints(part)
    faults: list[Fault] = []
    for key, value in arguments.items():
        try:
            TypeAdapter(hints[key]).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            faults += [
                Fault((*path, key, *detail["loc"]), f"{detail['msg']}; got {detail['input']!r}")
                for detail in error.errors()
            ]
    if faults:
        raise Faults(*faults)
    try:
        part(**arguments)
    except REFUSALS as error:
        named = next((key for key in arguments if key in str(error)), None)
        raise Faults(Fault(path if named is None else (*path, named), str(error))) from None


def torch_arguments(given: Resolved) -> dict[str, Any]:
    """The arguments of a torch optimizer, which takes tuples where YAML has lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k != "type"}


def resolve_torch(
    cls: Callable[..., Any], given: dict[str, Any], path: Keys, trial: Callable[..., Any]
) -> Resolved:
    """The arguments of a torch optimizer that differ from its defaults. Raises Faults.

    `trial(**arguments)` builds one, so that torch itself refuses what it cannot use.
    """
    known = dict(list(inspect.signature(cls).parameters.items())[1:])
    arguments = torch_arguments(given)
    faults = [
        Fault((*path, key), unknown(f"key of torch.{cls.__name__}", key, known), at_key=True)
        for key in arguments
        if key not in known
    ]
    faults += [
        Fault((*path, key), f"{key} must be a number; got {value!r}")
        for key, value in arguments.items()
        if key in known
        and type(known[key].default) in (int, float)
        and isinstance(value, (str, bool))
    ]
    if faults:
        raise Faults(*faults)
    try:
        trial(**arguments)
    except Exception as error:  # whatever torch says about its own arguments
        text = str(error).splitlines()[0]
        named = next((key for key, value in arguments.items() if _mentions(text, value)), None)
        text = f"torch.{cls.__name__} refuses: {text}"
        raise Faults(Fault(path if named is None else (*path, named), text)) from None
    own = {key: value for key, value in arguments.items() if value != known[key].default}
    return {"type": given["type"], **_plain(own)}


def _mentions(text: str, value: object) -> bool:
    """Whether a text has the value as a word of its own."""
    return re.search(rf"(?<![\w.+-]){re.escape(str(value))}(?![\w.])", text) is not None


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _type_path(given: dict[str, Any], path: Keys) -> Keys:
    return (*path, "type") if len(given) > 1 else path


def _plain(value: Any) -> Any:
    """Lists for sequences, so that a resolved part is plain YAML and JSON."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value

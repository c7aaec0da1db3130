"""Parts from tables, given by name or as a mapping with `type` and arguments.

`resolve` writes out every default, so that equal parts are equal data; `make` builds the part. A
field of a part may be a part itself: `Nested` maps the annotations of such fields to their tables.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from bdhf.experiments.errors import Fault, Faults, Keys, unknown
from bdhf.experiments.parts.user_parts import is_own, lacks, no_plain_defaults, own_part

Table = Mapping[str, Callable[..., Any]]
Resolved = dict[str, Any]
Nested = Mapping[Any, tuple[str, Table]]  # annotation of a field -> (kind of part, its table)
Spell = Callable[[str, Any], Any]  # (kind, value) -> the value without shorthand

_FLAT: Nested = types.MappingProxyType({})  # no nested parts

#: The exceptions of a part for arguments that it refuses.
_REFUSALS = (ValueError, TypeError, OverflowError, RuntimeError, MemoryError)


def as_given(kind: str, value: Any) -> Any:
    """No shorthand."""
    return value


def resolve(
    kind: str,
    table: Table,
    data: Any,
    path: Keys,
    nested: Nested = _FLAT,
    spell: Spell = as_given,
    role: Any = None,
) -> Resolved:
    """Give the part's `type` and all its arguments, with defaults. Raises Faults.

    `role` is the Protocol of the kind, which a user's own part must implement.
    """
    data = spell(kind, data)
    if isinstance(data, str):
        data = {"type": data}
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise Faults(
            Fault(
                path, f"give {kind} by name or as a mapping with `type`; known: {', '.join(table)}"
            )
        )
    name = data["type"]
    part = _part(kind, table, name, _type_path(data, path))
    arguments = {key: value for key, value in data.items() if key != "type"}
    _check_keys(name, part, arguments, path)
    arguments = _resolve_fields(part, arguments, path, nested, spell)
    built = _try(name, part, arguments, path, nested)
    missing = lacks(built, role) if role and is_own(name) else ()
    if missing:
        raise Faults(Fault(path, f"{name} cannot serve as {kind}: it lacks {', '.join(missing)}"))
    inner, own = _inner(part, nested), is_own(name)
    defaults = {  # from the built part, because they may depend on its other arguments
        field.name: _written(getattr(built, field.name), inner.get(field.name), nested, own)
        for field in _fields(part)
        if field.name not in arguments
    }
    objects = no_plain_defaults(name, defaults) if own else ()
    if objects:
        raise Faults(*(Fault(path, line) for line in objects))
    return {"type": name, **plain_data(defaults | arguments)}


def make(table: Table, resolved: Resolved, nested: Nested = _FLAT) -> Any:
    """Build a part that `resolve` has checked, with the parts in it."""
    arguments = {key: value for key, value in resolved.items() if key != "type"}
    name = resolved["type"]
    part = own_part(name) if is_own(name) else table[name]
    return part(**_built(part, arguments, nested))


def refusals(name: str) -> tuple[type[Exception], ...]:
    """The exceptions of a part for arguments that it refuses; of a user's own part, any."""
    return (Exception,) if is_own(name) else _REFUSALS


def _part(kind: str, table: Table, name: str, path: Keys) -> Callable[..., Any]:
    """The class or function that builds a part. Raises Faults."""
    if not is_own(name):
        if name not in table:
            raise Faults(Fault(path, unknown(kind, name, table)))
        return table[name]
    try:
        return own_part(name)
    except ValueError as error:
        raise Faults(Fault(path, str(error))) from None


class _Inner(NamedTuple):
    """A field that is itself a part."""

    kind: str
    table: Table
    optional: bool  # may be null
    role: Any  # its annotation


def _inner(part: Callable[..., Any], nested: Nested) -> dict[str, _Inner]:
    """The fields of a part that are parts: one of these annotations, or it or None."""
    fields = {}
    for name, hint in _hints(part).items() if nested else ():
        choices = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        kinds = [choice for choice in choices if choice is not types.NoneType]
        table = _table_of(kinds[0], nested) if len(kinds) == 1 else None
        if table:
            fields[name] = _Inner(*table, optional=len(choices) > 1, role=kinds[0])
    return fields


def _table_of(hint: Any, nested: Nested) -> tuple[str, Table] | None:
    """Kind and table of a field that is a part; a class as annotation allows that class only."""
    if hint in nested:
        return nested[hint]
    for kind, table in nested.values():
        own = {name: part for name, part in table.items() if part is hint}
        if own:
            return kind, own
    return None


_hints = lru_cache(maxsize=256)(get_type_hints)  # a grid repeats the same parts


@lru_cache(maxsize=1024)
def _adapter(part: Callable[..., Any], field: str) -> TypeAdapter[Any]:
    """The checker of a plain field of a part."""
    return TypeAdapter(_hints(part)[field])


def _check_keys(name: str, part: Callable[..., Any], arguments: Resolved, path: Keys) -> None:
    """Raise Faults for unknown keys and for missing required keys."""
    fields = {field.name: field for field in _fields(part)}
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


def _resolve_fields(
    part: Callable[..., Any], arguments: Resolved, path: Keys, nested: Nested, spell: Spell
) -> Resolved:
    """Check plain arguments by the part's annotations, and resolve nested parts."""
    inner = _inner(part, nested)
    resolved: Resolved = {}
    faults: list[Fault] = []
    for key, value in arguments.items():
        try:
            field = inner.get(key)
            if field is not None and not (field.optional and value is None):
                where = (*path, key)
                value = resolve(field.kind, field.table, value, where, nested, spell, field.role)
            elif field is None:
                _adapter(part, key).validate_json(json.dumps(value), strict=True)
            resolved[key] = value
        except ValidationError as error:
            faults += [
                Fault((*path, key, *detail["loc"]), f"{detail['msg']}; got {detail['input']!r}")
                for detail in error.errors()
            ]
        except Faults as error:
            faults += error.faults
    if faults:
        raise Faults(*faults)
    return resolved


def _try(
    name: str, part: Callable[..., Any], arguments: Resolved, path: Keys, nested: Nested
) -> Any:
    """Build the part, which may refuse its arguments. Raises Faults."""
    try:
        return part(**_built(part, arguments, nested))
    except refusals(name) as error:
        named = next((key for key in arguments if key in str(error)), None)
        message = str(error) or type(error).__name__
        raise Faults(Fault(path if named is None else (*path, named), message)) from None


def _built(part: Callable[..., Any], arguments: Resolved, nested: Nested) -> Resolved:
    """The arguments, with nested parts built."""
    inner = _inner(part, nested)
    return {
        key: make(inner[key].table, value, nested) if key in inner and value else value
        for key, value in arguments.items()
    }


def _written(value: Any, field: _Inner | None, nested: Nested, own: bool) -> Any:
    """A default in the form of a spec: a part as a mapping, named by its class.

    `own`: the default belongs to a user's part, and may itself be a user's part.
    """
    if field is None or value is None:
        return value
    cls = type(value)
    if own and not dataclasses.is_dataclass(value):
        return value  # `no_plain_defaults` refuses it
    names = [name for name, part in field.table.items() if part is cls]
    names += [f"{cls.__module__}:{cls.__qualname__}"] * own
    if not names:
        raise LookupError(f"the default {value!r} is in no table of kind {field.kind!r}")
    inner = _inner(cls, nested)
    return {"type": names[0]} | {
        field.name: _written(getattr(value, field.name), inner.get(field.name), nested, own)
        for field in dataclasses.fields(value)
    }


def _fields(part: Callable[..., Any]) -> tuple[dataclasses.Field[Any], ...]:
    is_plain = not dataclasses.is_dataclass(part)  # a function
    return () if is_plain else dataclasses.fields(part)  # type: ignore[arg-type]


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _type_path(data: dict[str, Any], path: Keys) -> Keys:
    return (*path, "type") if len(data) > 1 else path


def plain_data(value: Any) -> Any:
    """A copy with lists for tuples, so that a resolved part is plain YAML and JSON."""
    if isinstance(value, dict):
        return {key: plain_data(inner) for key, inner in value.items()}
    return [plain_data(inner) for inner in value] if isinstance(value, (list, tuple)) else value

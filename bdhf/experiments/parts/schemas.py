"""JSON Schemas of the parts that a spec may name, from the tables.

Every kind is one definition: a part by name, as a mapping with `type` and arguments, by shorthand,
or a user's own. No argument is required, because a grid may supply it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter

from bdhf.experiments.parts.resolve import Table
from bdhf.experiments.parts.tables import DTYPES, NESTED, NUMBERS, PARTS, PROBLEMS, PRODUCTS, ROLES
from bdhf.experiments.parts.torch_optimizers import torch_optimizers
from bdhf.experiments.parts.user_parts import OWN
from bdhf.optim import BlockHessianFree
from bdhf.optim.products import METHODS
from bdhf.problems import Problem

JsonSchema = dict[str, Any]

#: Parts whose arguments come from the problem if a spec omits them.
_FILLED = ("groups",)

#: The schemas of the keys of `block_hf` that are not parts.
_SETTINGS: Mapping[str, JsonSchema] = {
    "lr": {
        "type": "number",
        "exclusiveMinimum": 0,
        "description": "Learning rate: the share of the solver's step that is taken.",
    },
    "method": {
        "enum": ["auto", *METHODS],
        "description": "How products are computed; auto: the method of lowest estimated cost.",
    },
    "max_bytes": {
        "type": "integer",
        "minimum": 1,
        "description": "Bytes of a batch that layer_io may keep; it recomputes the rest.",
    },
    "product_dtype": {
        "enum": list(DTYPES),
        "description": "Precision of matrix products in curvature products; null: that of `dtype`.",
    },
    "compile": {
        "type": "boolean",
        "description": "Whether propagate uses torch.compile.",
    },
}

_OWN: JsonSchema = {
    "type": "string",
    "pattern": f"^{OWN.pattern}$",
    "description": "A part of your own: package.module:name.",
}
_OWN_WITH_KEYS: JsonSchema = {
    "type": "object",
    "properties": {"type": _OWN},
    "required": ["type"],
}


def part_schemas() -> dict[str, JsonSchema]:
    """The definitions of every kind of part, of every optimizer and of `arm`, by name."""
    roles = {"problem": Problem, **ROLES, **{kind: role for role, (kind, _) in NESTED.items()}}
    tables = {"problem": PROBLEMS, **{kind: table for kind, (table, _) in PARTS.items()}}
    tables |= dict(NESTED.values())
    kinds = {
        kind: {"description": described(roles[kind]), **_kind(kind, table)}
        for kind, table in tables.items()
    }
    optimizers = {"block_hf": _block_hf()} | {
        name: _torch(name, optimizer) for name, optimizer in torch_optimizers().items()
    }
    names = [schema["properties"]["type"] for schema in optimizers.values()]
    mappings = [ref(name) for name in optimizers]
    return {**kinds, **optimizers, "arm": _choice(*names, *mappings, _OWN, _OWN_WITH_KEYS)}


def ref(definition: str) -> JsonSchema:
    """A reference to a definition of the schema."""
    return {"$ref": f"#/definitions/{definition}"}


def described(part: Callable[..., Any]) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(part) or "").partition("\n")[0]


def _kind(kind: str, table: Table) -> JsonSchema:
    """A part of a kind, in all its forms."""
    names = [_name(name, part) for name, part in table.items() if _stands_alone(name, part)]
    mappings = [_mapping(name, part, _arguments(part)) for name, part in table.items()]
    number: list[JsonSchema] = []
    if kind in NUMBERS:
        name, argument = NUMBERS[kind]
        text = f"The {argument} of {name}: {described(table[name])}"
        number = [{"type": "number", "description": text}]
    return _choice(*names, *number, *mappings, _OWN, _OWN_WITH_KEYS)


def _stands_alone(name: str, part: Callable[..., Any]) -> bool:
    """Whether a name alone gives a part: it needs no argument, or the problem supplies it."""
    return name in _FILLED or inspect.Parameter.empty not in _defaults(part).values()


def _arguments(part: Callable[..., Any]) -> dict[str, JsonSchema]:
    """The schema of every argument of a part."""
    hints = get_type_hints(part)
    return {
        name: _typed(hints[name]) | _description(part, name) | _default(default)
        for name, default in _defaults(part).items()
    }


def _typed(hint: Any) -> JsonSchema:
    """The schema of an annotation; for a part, a reference to its kind."""
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = [ref(NESTED[choice][0]) for choice in choices if choice in NESTED]
    if not kinds:
        return TypeAdapter(hint).json_schema()
    return _choice(*kinds, {"type": "null"}) if NoneType in choices else kinds[0]


def _description(part: Callable[..., Any], argument: str) -> JsonSchema:
    """The description of an argument: the paragraph of the part's docstring that names it."""
    prose = (inspect.getdoc(part) or "").partition(">>>")[0]
    for paragraph in prose.split("\n\n"):
        text = re.split(r"\bRaises ", " ".join(paragraph.split()))[0].strip()
        if f"`{argument}`" in text:
            return {"description": text}
    return {}


def _default(value: Any) -> JsonSchema:
    """A default in the form of a spec; a part with default arguments by its name."""
    if isinstance(value, (bool, int, float, str, list, NoneType)):
        return {"default": value}
    if isinstance(value, tuple):
        return {"default": list(value)}
    named = (item for _, table in NESTED.values() for item in table.items())
    names = [name for name, part in named if type(value) is part and vars(value) == _defaults(part)]
    return {"default": names[0]} if names else {}


def _defaults(part: Callable[..., Any]) -> dict[str, Any]:
    return {
        name: parameter.default for name, parameter in inspect.signature(part).parameters.items()
    }


def _block_hf() -> JsonSchema:
    """`block_hf`: its parts and the settings of its products."""
    parts = {kind: _part(kind, default) for kind, (_, default) in PARTS.items()}
    defaults = _defaults(BlockHessianFree)
    settings = {key: _SETTINGS.get(key, {}) | _default(defaults[key]) for key in ("lr", *PRODUCTS)}
    return _mapping("block_hf", BlockHessianFree, parts | settings)


def _part(kind: str, default: str | None) -> JsonSchema:
    """A key of `block_hf` that names a part; one whose default is null may be null."""
    if default is None:
        text = described(ROLES[kind])
        return {**_choice(ref(kind), {"type": "null"}), "default": None, "description": text}
    return {**ref(kind), "default": default}


def _torch(name: str, optimizer: Callable[..., Any]) -> JsonSchema:
    """An optimizer of torch; an argument has the type of its default if that is plain."""
    types = {int: "number", float: "number", bool: "boolean"}
    properties = {}
    for argument, default in list(_defaults(optimizer).items())[1:]:  # after the parameters
        plain = types.get(type(default))
        properties[argument] = ({"type": plain} if plain else {}) | _default(default)
    return _mapping(name, optimizer, properties)


def _mapping(
    name: str, part: Callable[..., Any], arguments: Mapping[str, JsonSchema]
) -> JsonSchema:
    """A part as a mapping: its `type`, and these keys only."""
    return {
        "type": "object",
        "description": described(part),
        "properties": {"type": _name(name, part), **arguments},
        "required": ["type"],
        "additionalProperties": False,
    }


def _name(name: str, part: Callable[..., Any]) -> JsonSchema:
    return {"const": name, "description": described(part)}


def _choice(*choices: JsonSchema) -> JsonSchema:
    return {"anyOf": list(choices)}

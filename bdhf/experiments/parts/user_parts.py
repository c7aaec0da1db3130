"""A user's own parts: `package.module:name` instead of a name from a table.

It names a frozen dataclass, whose fields are the keys of the part in a spec, or a function, which
is the part itself; an arm may name an optimizer class. The module is searched where Python finds
packages, in the working directory, and in the folder of the spec (`user_modules.py`). Whoever runs
a spec runs the code that it names.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, get_type_hints

from bdhf.experiments.errors import unknown
from bdhf.experiments.parts.user_modules import allow
from bdhf.experiments.parts.user_source import remember
from bdhf.records import of_what_kind

#: `package.module:name`.
OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_own(name: str) -> bool:
    """Whether a type names a user's own part.

    >>> is_own("lab.parts:Thirds"), is_own("per_layer")
    (True, False)
    """
    return ":" in name


def own_part(name: str) -> Callable[..., Any]:
    """The class or function that builds the part. Raises ValueError if it is not a part."""
    part = _imported(name)
    if inspect.isfunction(part):
        return lambda: part
    if not (inspect.isclass(part) and dataclasses.is_dataclass(part)):
        what = type(part).__name__ if not inspect.isclass(part) else "class without fields"
        raise ValueError(f"{name} is a {what}: give a (frozen) dataclass, or a function")
    try:
        get_type_hints(part)
    except Exception as error:  # annotations may raise anything
        raise ValueError(f"{name}: its annotations cannot be read: {error}") from None
    return part


def own_class(name: str, base: type) -> type[Any]:
    """A class derived from `base`. Raises ValueError for anything else."""
    cls = _imported(name)
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise ValueError(f"{name} is not a subclass of {base.__module__}.{base.__qualname__}")
    return cls


def lacks(part: Any, role: type) -> Sequence[str]:
    """The members of a role, a Protocol or a class, that a part lacks.

    >>> from collections.abc import Sized
    >>> lacks(3, Sized), lacks([3], Sized)
    (['__len__'], [])
    """
    own = {"__call__", "__len__"}
    members = [name for name in vars(role) if not name.startswith("_") or name in own]
    members += [name for name in vars(role).get("__annotations__", ()) if name not in members]
    return [name for name in members if not hasattr(part, name)]


def no_plain_defaults(name: str, defaults: Mapping[str, Any]) -> list[str]:
    """A line for every default of a part that JSON cannot hold; run ids contain all defaults.

    >>> no_plain_defaults("lab:Chunks", {"size": (3, None), "end": {1}})[0][:55]
    "lab:Chunks: the default of its field 'end' is a set, wh"
    """
    lines = []
    for field, value in defaults.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            lines.append(
                f"{name}: the default of its field {field!r} is a {type(value).__name__}, which no "
                "spec can hold. Annotate a part with its protocol (such as bdhf.nn.Initialisation) "
                "and give an instance of a dataclass; otherwise give plain data: numbers, text, "
                "true, false, null, lists and mappings"
            )
    return lines


def _named_by(module: ModuleType) -> list[str]:
    """The names that a module or its package defines; if there are none, all its names."""
    public = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    top = module.__name__.partition(".")[0]
    own = [key for key, value in public.items()
           if str(getattr(value, "__module__", "")).partition(".")[0] == top]  # fmt: skip
    return own or list(public)


def _imported(name: str) -> Any:
    """The object of a name. Raises ValueError."""
    if not OWN.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a part: write package.module:name")
    module_name, _, attribute = name.partition(":")
    allow(module_name)
    remember(module_name)  # before the import, because its file may change afterwards
    try:
        module = import_module(module_name)
    except SystemExit:
        raise ValueError(
            f"cannot import {module_name}: it ends the program; put its script code under "
            '`if __name__ == "__main__":`'
        ) from None
    except Exception as error:  # the code of others may raise anything
        raise ValueError(f"cannot import {module_name}: {of_what_kind(error)}") from None
    if not hasattr(module, attribute):
        raise ValueError(unknown(f"name in {module_name}", attribute, _named_by(module)))
    return getattr(module, attribute)

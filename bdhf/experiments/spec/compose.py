"""A spec from several texts: the included files, the file itself, and values set on top.

    include: base.yaml                  # or a list of files; relative to the including file
    bdhf run spec.yaml --set arms.block_hf.lr=0.3

Mappings are merged key by key. All other values, a part of another `type`, and `budget`, which
names one axis, are replaced as a whole. Null removes an arm or a key of the spec.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bdhf.experiments.errors import Fault, Faults, Keys, SpecError
from bdhf.experiments.spec import size_limits
from bdhf.experiments.spec.dotted_paths import keys_of, put
from bdhf.experiments.spec.yaml_source import Layer, Source, parse


def read_spec(file: Path, settings: Sequence[str] = ()) -> Source:
    """Read a spec with the files that it includes, and set `path=value` on top of it.

    Raises SpecError for a file that is missing or malformed or includes itself, and for a setting
    whose path does not exist. Other faults of values are in `Source.faults`.
    """
    source = _with_includes(file)
    for setting in settings:
        source = _set(source, setting)
    return source


def _with_includes(file: Path) -> Source:
    """A file on top of all that it includes; each file counts once, at its first mention."""
    sources: dict[Path, Source] = {}
    _gather(file, (), sources)
    data: Any = None
    for source in sources.values():
        own = source.data
        if isinstance(own, dict):
            own = {key: value for key, value in own.items() if key != "include"}
        data = own if data is None else merged(data, own, ())
    layers = tuple(layer for source in sources.values() for layer in source.layers)
    return Source(data, layers, tuple(f for source in sources.values() for f in source.faults))


def _gather(file: Path, outer: tuple[Path, ...], sources: dict[Path, Source]) -> None:
    """Read the files that a file includes, then the file; `outer` are those that include it."""
    own, here = parse(size_limits.spec_text(file), str(file)), _resolved(file)
    included = own.data.get("include", []) if isinstance(own.data, dict) else []
    names = included if isinstance(included, list) else [included]
    if not all(isinstance(name, str) for name in names):
        raise own.error([Fault(("include",), f"give a file or a list of files; got {included!r}")])
    for index, name in enumerate(names):
        path: Keys = ("include", index) if isinstance(included, list) else ("include",)
        _include(file.parent / name, (*outer, here), own, path, sources)
    sources[here] = own


def _include(
    file: Path, outer: tuple[Path, ...], own: Source, path: Keys, sources: dict[Path, Source]
) -> None:
    """Read an included file. Raises SpecError at the `include` that names it."""
    here = _resolved(file)
    if here in outer:
        raise own.error([Fault(path, f"{file} includes itself")])
    if here in sources:
        return
    if len(outer) + len(sources) >= size_limits.MOST_FILES:
        raise own.error([Fault(path, f"a spec may have at most {size_limits.MOST_FILES} files")])
    try:
        _gather(file, outer, sources)
    except SpecError as error:
        if not file.is_file():
            raise own.error([Fault(path, error.lines[0])]) from None
        raise
    if not isinstance(sources[here].data, dict):
        raise own.error([Fault(path, f"{file} is not a mapping of keys")])


def _resolved(file: Path) -> Path:
    """One name for each file; the name of a missing file stays, and reading it fails later."""
    try:
        return file.resolve()
    except (OSError, RuntimeError, ValueError):  # a link to itself, an invalid character
        return file.absolute()


def merged(base: Any, over: Any, path: Keys) -> Any:
    """`over` on top of `base`, by the rules of this module."""
    if isinstance(base, str) and isinstance(over, dict) and path[:1] in (("arms",), ("problem",)):
        base = {"type": base}  # a part, given by its name
    both = isinstance(base, dict) and isinstance(over, dict)
    if not both or path == ("budget",) or over.get("type", base.get("type")) != base.get("type"):
        return over
    result = dict(base)
    for key, value in over.items():
        where = (*path, key)
        if value is None and _removes(where):
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value, where)
    return result


def _removes(path: Keys) -> bool:
    """Whether null removes the entry at a path; elsewhere null is a value."""
    return len(path) == 1 or (len(path) == 2 and path[0] == "arms")


def _set(source: Source, setting: str) -> Source:
    """The source with a value set. Raises SpecError."""
    label, (path, sign, text) = f"--set {setting}", setting.partition("=")
    if not isinstance(source.data, dict):
        return source  # a later check reports it
    if not sign or not path:
        raise SpecError([f"{label}: give a dotted path and a value: --set arms.block_hf.lr=0.3"])
    value = parse(text, label)
    try:
        keys = keys_of(path, source.data, ())
        data = put(source.data, keys, value.data, ())
    except Faults as error:
        raise SpecError(f"{label}: {fault.message}" for fault in error.faults) from None
    if value.data is None and _removes(keys):
        data = _without(data, keys)
    faults = (Fault((*keys, *fault.path), fault.message) for fault in value.faults)
    layer = Layer(label, setting, _nested(keys, value.data))
    return Source(data, (*source.layers, layer), (*source.faults, *faults))


def _nested(keys: Keys, value: Any) -> Any:
    """A mapping that holds only a value at the end of a path."""
    return {keys[0]: _nested(keys[1:], value)} if keys else value


def _without(data: Any, keys: Keys) -> Any:
    """The data without an entry."""
    if len(keys) == 1:
        return {key: value for key, value in data.items() if key != keys[0]}
    return {**data, keys[0]: _without(data[keys[0]], keys[1:])}

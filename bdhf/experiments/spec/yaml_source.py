"""YAML 1.2 as plain data, with the line and column of every key.

`1e-3` is a number, `no` a string, `010` ten, `2.0` the integer 2; a repeated key is an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from bdhf.experiments.errors import Fault, Keys, SpecError
from bdhf.experiments.spec.size_limits import shortened, too_much
from bdhf.records import in_brief
from bdhf.records.disk.files import UNREADABLE


@dataclass(frozen=True)
class Layer:
    """One text of a spec: a file, or a setting of the command line."""

    label: str  # the file, or `--set arms.hf.lr=0.3`
    text: str
    tree: Any  # the round-trip tree of ruamel.yaml, with positions; of a setting, builtin types

    def depth(self, path: Keys) -> int:
        """How many keys of a path this layer contains."""
        node = self.tree
        for depth, key in enumerate(path):
            if not _holds(node, key):
                return depth
            node = node[key]
        return len(path)

    def position(self, fault: Fault) -> tuple[int, int]:
        """Line and column, from 1, of the deepest part of the path in this layer; or (0, 0)."""
        node, deepest = self.tree, (0, 0) if type(self.tree) is dict else (1, 1)
        for depth, key in enumerate(fault.path, start=1):
            last = depth == len(fault.path)
            entry = _position(node, key, at_key=not last or fault.at_key)
            if entry is None:
                break
            deepest, node = entry, node[key]
        return deepest


@dataclass(frozen=True)
class Source:
    """The plain data of a spec, and the layers that they come from, with positions."""

    data: Any
    layers: tuple[Layer, ...]  # included files, own file, settings; the last one wins
    faults: tuple[Fault, ...] = ()  # values that are not plain data

    @property
    def file(self) -> str:
        """The spec's own file."""
        return self.layers[self._own].label

    @property
    def text(self) -> str:
        """The spec as one text: that of its only file, or the merged layers."""
        if len(self.layers) == 1:
            return self.layers[0].text
        buffer, yaml = StringIO(), YAML()
        for layer in self.layers:
            buffer.writelines(f"# {line}\n" for line in layer.label.splitlines())
        yaml.default_flow_style = False
        yaml.dump(self.data, buffer)
        return buffer.getvalue()

    def error(self, faults: Iterable[Fault]) -> SpecError:
        """Turn faults into an error whose lines name file, line and column, in file order.

        Other faults of values that are not plain data are left out.
        """
        faults = [*self.faults, *(fault for fault in faults if not self._is_covered(fault))]
        located = sorted(map(self._line, dict.fromkeys(faults)), key=lambda line: line[:-1])
        return SpecError(line for *_, line in located)

    @property
    def _own(self) -> int:
        return max(i for i, layer in enumerate(self.layers) if type(layer.tree) is not dict)

    def _line(self, fault: Fault) -> tuple[int, int, int, str]:
        """The layer of a fault, its line and column, and the line of the message."""
        depths = [layer.depth(fault.path) for layer in self.layers]
        index = max(range(len(depths)), key=lambda i: (depths[i], i)) if any(depths) else self._own
        layer = self.layers[index]
        line, column = layer.position(fault)
        location = f"{layer.label}:" + (f"{line}:{column}:" if line else "")
        return index, line, column, f"{location} {_on_a_line(_dotted(fault.path) + fault.message)}"

    def _is_covered(self, fault: Fault) -> bool:
        return any(fault.path[: len(outer.path)] == outer.path for outer in self.faults)


def parse(text: str, file: str = "<spec>") -> Source:
    """Parse one text. Raises SpecError for malformed YAML, a repeated key, and an excess.

    `size_limits` has the limits.
    """
    try:
        over = too_much(text)
        tree = None if over else YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        location = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise SpecError([f"{location}: {_first_line(error)}"]) from None
    except (YAMLError, *UNREADABLE) as error:  # the parser raises more than it documents
        raise SpecError([f"{file}: not YAML: {in_brief(error)}"]) from None
    if over:
        line, column, why = over
        raise SpecError([f"{file}:{line}:{column}: {why}"])
    data = _plain(tree)
    faults = (*_not_plain(tree, ()), *_bad_numbers(data, ()))
    return Source(data, (Layer(file, text, tree),), faults)


def _holds(node: Any, key: str | int) -> bool:
    """Whether a mapping has a key, or a list an index."""
    if isinstance(node, Mapping):
        return key in node
    is_list = isinstance(node, Sequence) and not isinstance(node, str)
    return is_list and isinstance(key, int) and key < len(node)


def _first_line(error: MarkedYAMLError) -> str:
    problem = (error.problem or error.context or "malformed YAML").splitlines()[0]
    if "duplicate key" in problem:
        return problem.split(" with value")[0] + ": a key may appear only once"
    return f"not YAML: {problem}"


def _plain(node: Any) -> Any:
    """The data in builtin types, with merges resolved."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [_plain(value) for value in node]
    if isinstance(node, float) and node.is_integer() and abs(node) < 2**63:
        return int(node)
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return None


def _not_plain(node: Any, path: Keys) -> Iterable[Fault]:
    """Values that other YAML readers may read differently.

    Keys that are not text (1 and "1" would be one name), dates, tags, and text that is not Unicode.
    """
    if getattr(getattr(node, "tag", None), "value", None):
        yield Fault(path, "tags (!...) are not supported: remove it")
    elif isinstance(node, Mapping):
        for key, inner in node.items():
            if not isinstance(key, str):
                yield Fault((*path, key), 'a key must be text: put it in quotes ("1")', at_key=True)
            yield from _not_plain(inner, (*path, key))
    elif isinstance(node, str):
        if not node.isascii() and node != node.encode("utf-8", "ignore").decode():
            yield Fault(path, "the text contains half of a surrogate pair")
    elif isinstance(node, Sequence):
        for index, inner in enumerate(node):
            yield from _not_plain(inner, (*path, index))
    elif node is not None and not isinstance(node, (bool, int, float)):
        yield Fault(path, f'{node} is read as a {type(node).__name__}: put it in quotes ("...")')


def _bad_numbers(value: Any, path: Keys) -> Iterable[Fault]:
    """Numbers that no computation can use: not finite, or too large."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _bad_numbers(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _bad_numbers(inner, (*path, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield Fault(path, f"{value} is not a finite number")
    elif isinstance(value, int) and value.bit_length() > 63:
        yield Fault(path, "the number is too large: whole numbers go up to 2^63")


def _position(node: Any, key: str | int, at_key: bool) -> tuple[int, int] | None:
    """Line and column, from 1, of an entry of a mapping (merged ones too) or of a list."""
    if isinstance(node, CommentedMap):
        own = node.lc.data or {}
        if key in own:
            line, column = own[key][:2] if at_key else own[key][2:]
            return line + 1, column + 1
        merged = (_merged(entry) for entry in getattr(node, "merge", ()))
        return next(filter(None, (_position(m, key, at_key) for m in merged)), None)
    if isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
        line, column = node.lc.item(key)
        return line + 1, column + 1
    return None


def _merged(entry: Any) -> Any:
    """The mapping of a merge; ruamel.yaml before 0.18.7 gave (position, mapping)."""
    return entry[1] if isinstance(entry, tuple) else entry


def _on_a_line(text: str) -> str:
    """A text on one line: line breaks and invisible characters are escaped, the end is cut."""
    return shortened("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))


def _dotted(path: Keys) -> str:
    return ".".join(str(key) for key in path) + ": " if path else ""

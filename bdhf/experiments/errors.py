"""Faults of a spec, as lines that say where, what is wrong, and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from bdhf.errors import BdhfError
from bdhf.records import InputError

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Fault:
    """One fault, and its path in the spec: keys and list positions."""

    path: Keys
    message: str
    at_key: bool = False  # the key itself is wrong, not the value behind it


class Faults(BdhfError):  # noqa: N818 - it holds several faults
    """All faults of a piece of a spec."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.faults = faults


class SpecError(InputError):
    """A spec that cannot be run; nothing has been written."""


def unknown(what: str, name: object, allowed: Iterable[str]) -> str:
    """The message for an unknown name: the known names, and the nearest of them.

    >>> unknown("partition", "per_nueron", ["full", "per_layer", "per_neuron"])
    "unknown partition 'per_nueron'; known: full, per_layer, per_neuron. Did you mean 'per_neuron'?"
    """
    names = list(allowed)
    message = f"unknown {what} {name!r}; known: {', '.join(names) or 'none'}"
    near = get_close_matches(str(name), names, n=1)
    return f"{message}. Did you mean {near[0]!r}?" if near else message

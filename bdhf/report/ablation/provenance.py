"""Where the runs of an ablation ran: distinct values of every field, and warnings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bdhf.text.formatting import counted

#: Names of fields on which runs must agree for their seconds to be comparable.
_HARDWARE = re.compile(r"(host|hostname|cpu|gpu|device)$")
_COMMIT = re.compile(r"commit$")
_DIRTY = re.compile(r"dirty$")  # False or "" where the working tree was clean

#: More distinct values than this are counted, and listed on demand.
_SHOWN = 4


@dataclass(frozen=True)
class Field:
    """One field of env.json with its distinct values and the number of runs that have each."""

    name: str
    values: tuple[tuple[str, int], ...]

    @property
    def folded(self) -> bool:
        """Whether the values are too many to show at once."""
        return len(self.values) > _SHOWN


def fields(environments: pd.DataFrame) -> tuple[Field, ...]:
    """Every field of the environments, the most common value first; nested names are dotted."""
    flat = [_flat(row) for row in environments.to_dict("records")]
    names = dict.fromkeys(name for row in flat for name in row if name != "run_id")
    return tuple(_field(name, [row[name] for row in flat if name in row]) for name in names)


def warnings(environments: pd.DataFrame) -> tuple[str, ...]:
    """Warnings about seconds, and about the code behind the numbers."""
    sentences: list[str] = []
    for field in fields(environments):
        kinds = [f"{value or 'none'} ({counted(n, 'run')})" for value, n in field.values]
        unset = sum(n for value, n in field.values if value in _UNSET)
        if _HARDWARE.search(field.name) and len(kinds) > 1:
            sentences.append(
                f"Seconds come from different machines ({field.name}: {', '.join(kinds)}) and are "
                "not comparable across them; updates are."
            )
        if _COMMIT.search(field.name) and len(kinds) > 1:
            sentences.append(f"The runs come from different commits: {', '.join(kinds)}.")
        if _COMMIT.search(field.name) and unset:
            sentences.append(f"{counted(unset, 'run')} recorded no commit.")
        changed = len(environments) - unset
        if _DIRTY.search(field.name) and changed:
            sentences.append(
                f"{counted(changed, 'run')} came from a working tree with uncommitted changes; "
                "the commit alone does not reproduce them."
            )
    return tuple(sentences)


_UNSET = ("False", "None", "")


def _field(name: str, values: list[str]) -> Field:
    counts = pd.Series(values, dtype=object).value_counts()
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    return Field(name, tuple((str(value), int(n)) for value, n in ordered))


def _flat(row: Mapping[Any, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, float) and pd.isna(value):
            continue  # a field that this run's env.json does not have
        else:
            flat[prefix + str(key)] = str(value)
    return flat

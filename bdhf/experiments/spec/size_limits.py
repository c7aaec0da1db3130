"""How much a spec or a study may hold. Every limit is told at its place, before it costs anything.

An alias of YAML stands for all that it names, and a grid for the product of its lists: a short file
may be very long. Whoever runs a spec that others wrote gets a line, and no process without memory.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    ScalarEvent,
)

from bdhf.experiments.errors import SpecError
from bdhf.records import in_brief

#: Bytes of one file.
BYTES = 1_000_000

#: Files of one spec: itself and all that it includes.
MOST_FILES = 100

#: Mappings and lists inside each other.
DEPTH = 50

#: Keys, values, mappings and lists of one file, with all that its aliases stand for.
VALUES = 1_000_000

#: Digits of one number. Python gives up at 4,300, and says no place.
DIGITS = 1_000

#: Combinations × arms × seeds, before anything is excluded or falls together.
CELLS = 100_000

#: Characters of one line that tells what is wrong.
LINE = 2_000


def spec_text(file: Path) -> str:
    """The text of a file. Raises SpecError for one that cannot be read, is none, or is too long."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would block, a device never end
            raise SpecError([f"{file}: no regular file: give a YAML file, no folder or device"])
        with file.open("rb") as stream:
            content = stream.read(BYTES + 1)
        if len(content) > BYTES:
            raise SpecError([f"{file}: longer than {BYTES:,} bytes, the most that a file may have"])
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise SpecError([f"{file}: cannot read the spec: {in_brief(error)}"]) from None


def too_much(text: str) -> tuple[int, int, str] | None:
    """Line and column, from 1, at which a YAML text is too much to be read, and why; None: never.

    The events of the parser are counted, none is kept: an alias counts as all that it stands for.
    Raises what the parser raises.
    """
    total = depth = 0
    sizes: dict[str, int] = {}  # of what an anchor names
    opened: list[tuple[str | None, int]] = []  # anchors of what is open, and the total before each
    for event in YAML(typ="rt", pure=True).parse(text):
        wrong = ""
        if isinstance(event, CollectionEndEvent):
            anchor, before = opened.pop()
            depth -= 1
            sizes |= {anchor: total - before} if anchor else {}
            continue
        if isinstance(event, CollectionStartEvent):
            opened.append((event.anchor, total))
            total, depth = total + 1, depth + 1
            wrong = f"nested deeper than {DEPTH} levels" if depth > DEPTH else ""
        elif isinstance(event, ScalarEvent):
            total += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
            digits = event.value.lstrip("+-")
            if len(digits) > DIGITS and digits.isdecimal():
                wrong = f"a number of more than {DIGITS:,} digits"
        elif isinstance(event, AliasEvent):
            total += sizes.get(event.anchor, 1)
            if any(anchor == event.anchor for anchor, _ in opened):
                wrong = f"*{event.anchor} stands inside of what it stands for"
        if total > VALUES:
            wrong = f"more than {VALUES:,} values, counting what aliases stand for"
        if wrong:
            return event.start_mark.line + 1, event.start_mark.column + 1, wrong
    return None


def combinations_in(grids: Sequence[Mapping[str, Any]]) -> int:
    """Combinations of all grids together, before those that are in two of them fall together."""
    lengths = ([len(v) for v in grid.values() if isinstance(v, list)] for grid in grids)
    return sum(math.prod(of_one) for of_one in lengths)


def too_many_cells(combinations: int, data: Mapping[str, Any]) -> str:
    """Say that a spec would have more cells than a plan may have; "" if it would not.

    `data` is the spec as it is given, unchecked.
    """
    arms, seeds = data.get("arms"), data.get("seeds")
    count = seeds.get("count") if isinstance(seeds, dict) else 1
    factors = {
        **({"combinations": combinations} if combinations > 1 else {}),
        "arms": len(arms) if isinstance(arms, dict) else 1,
        "seeds": count if isinstance(count, int) else 1,
    }
    cells = math.prod(factors.values())
    if cells <= CELLS:
        return ""
    words = " × ".join(f"{number:,} {name}" for name, number in factors.items())
    return (
        f"{words} are {cells:,} cells, and a plan has at most {CELLS:,}: leave values out, or make "
        "several specs of it"
    )


def shortened(line: str) -> str:
    """A line without what is beyond its limit."""
    return line if len(line) <= LINE else f"{line[:LINE]}… ({len(line) - LINE:,} characters more)"

"""Size limits of specs and studies. An excess is reported at its line before it costs anything.

An alias of YAML stands for its whole value, and a grid for the product of its lists, so a short
file can become very long. A spec from others then gives an error, and does not exhaust memory.
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

#: Files of one spec, with all included files.
MOST_FILES = 100

#: Nested mappings and lists.
DEPTH = 50

#: Keys, values, mappings and lists of one file, with aliases expanded.
VALUES = 1_000_000

#: Digits of one number. Python refuses 4,300, without a position.
DIGITS = 1_000

#: Combinations × arms × seeds, before exclusion and before equal runs are merged.
CELLS = 100_000

#: Characters of one line of an error message.
LINE = 2_000


def spec_text(file: Path) -> str:
    """The text of a file. Raises SpecError if it is unreadable, too long, or not a regular file."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would block, a device has no end
            raise SpecError([f"{file}: not a regular file: give a YAML file"])
        with file.open("rb") as stream:
            content = stream.read(BYTES + 1)
        if len(content) > BYTES:
            raise SpecError([f"{file}: longer than the limit of {BYTES:,} bytes"])
        return content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise SpecError([f"{file}: cannot read the spec: {in_brief(error)}"]) from None


def too_much(text: str) -> tuple[int, int, str] | None:
    """Line and column, from 1, at which a YAML text exceeds a limit, and which; None: nowhere.

    Only counts the events of the parser; an alias counts as its expanded value. Raises what the
    parser raises.
    """
    total = depth = 0
    sizes: dict[str, int] = {}  # of the value of each anchor
    opened: list[tuple[str | None, int]] = []  # anchors of open collections, the total before each
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
                wrong = f"a number with more than {DIGITS:,} digits"
        elif isinstance(event, AliasEvent):
            total += sizes.get(event.anchor, 1)
            if any(anchor == event.anchor for anchor, _ in opened):
                wrong = f"*{event.anchor} refers to a value that contains it"
        if total > VALUES:
            wrong = f"more than {VALUES:,} values, with aliases expanded"
        if wrong:
            return event.start_mark.line + 1, event.start_mark.column + 1, wrong
    return None


def combinations_in(grids: Sequence[Mapping[str, Any]]) -> int:
    """The sum of the combinations of all grids; combinations that two grids share count twice."""
    lengths = ([len(v) for v in grid.values() if isinstance(v, list)] for grid in grids)
    return sum(map(math.prod, lengths))


def too_many_cells(combinations: int, data: Mapping[str, Any]) -> str:
    """Why a spec has more cells than a plan may have; "" if it does not.

    `data` is the unchecked spec.
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
        f"{words} are {cells:,} cells, but a plan may have at most {CELLS:,}: remove values, or "
        "split the spec into several"
    )


def shortened(line: str) -> str:
    """A line, cut at the limit."""
    return line if len(line) <= LINE else f"{line[:LINE]}… ({len(line) - LINE:,} more characters)"

"""Values of a spec as texts: in short words for labels, and exactly, to compare them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

_LONGEST = 40  # characters of a value in words


def exactly(value: Any) -> str:
    """A value as a text; different values have different texts."""
    return json.dumps(value, sort_keys=True)


def in_short(values: Sequence[Any]) -> list[str]:
    """Each value in short words: a part by its type, and by its arguments if types repeat.

    >>> in_short(["full", {"type": "cg", "tol": 0.1}, 250, [1, 2]])
    ['full', 'cg', '250', '[1,2]']
    >>> in_short(["cg", {"type": "cg", "tol": 0.1}]), in_short(["x" * 50, "x" * 51])[1][-3:]
    (['cg', 'cg(tol=0.1)'], '…#2')
    """
    short = [compact(value) for value in values]
    times, before = Counter(short), Counter[str]()
    words = []
    for value, text in zip(values, short, strict=True):
        chosen = _with_arguments(value) if times[text] > 1 else text
        before[chosen] += 1
        words.append(f"{chosen}#{before[chosen]}" if before[chosen] > 1 else chosen)
    return words


def compact(value: Any) -> str:
    """A value in a few characters: a part by its type, a long text cut."""
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        return str(value["type"])
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _with_arguments(value: Any) -> str:
    if not isinstance(value, dict) or len(value) < 2 or "type" not in value:
        return compact(value)
    arguments = (f"{key}={compact(inner)}" for key, inner in value.items() if key != "type")
    return compact(f"{value['type']}({','.join(arguments)})")

"""Properties of an environment that can change the numbers of a run, and their values in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: Keys of env.json that can change the last bits of a curve.
MATTERS = (
    "bdhf", "torch", "numpy", "cpu", "gpu", "device", "threads", "platform", "python", "cuda",
    "tf32", "deterministic", "commit", "dirty",
)  # fmt: skip

#: Further keys that can change how long a run took.
TIMING = ("host", "cores")

#: The value of a missing key.
NOT_RECORDED = "not recorded"


def shown(name: str, value: Any) -> str:
    """A value of a key of env.json in words, the same for values that count as equal.

    All GPUs of one machine count as equal: their model is in `gpu`.

    >>> shown("device", "cuda:3"), shown("tf32", True), shown("gpu", ""), shown("threads", 2.0)
    ('cuda', 'yes', 'none', '2')
    >>> shown("torch", None)
    'not recorded'
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOT_RECORDED
    if str(value) in ("True", "False"):
        return "yes" if str(value) == "True" else "no"
    if (
        isinstance(value, float) and value.is_integer()
    ):  # whole numbers in a column with missing ones
        return str(int(value))
    text = str(value)
    if name == "device":
        return text.partition(":")[0]
    return text[:8] if name == "commit" and text else text or "none"


def hashes_in_words(hashes: Mapping[str, str]) -> str:
    """Hashes of modules in the format of `own_code` in env.json.

    >>> hashes_in_words({"lab.parts": "12ab", "lab": "34cd"})
    'lab 34cd, lab.parts 12ab'
    """
    return ", ".join(f"{module} {digest}" for module, digest in sorted(hashes.items()))


def hashes_of_words(text: str) -> dict[str, str]:
    """The hashes of modules from that format.

    >>> hashes_of_words("lab 34cd, lab.parts 12ab")
    {'lab': '34cd', 'lab.parts': '12ab'}
    """
    pairs = (entry.partition(" ") for entry in text.split(", ") if entry)
    return {module: digest for module, _, digest in pairs}

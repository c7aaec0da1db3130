"""How templates become pages: strict about names, escaping all text, numbers for human readers.

No text turns the direction of writing: the name of a comparison could turn round the words that
stand behind it, and a comment of the spec those of the spec.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bdhf.report.page.policy import policy
from bdhf.stats.inference.power import MOST_SEEDS
from bdhf.text.formatting import counted, interval, number, p_value, seeds_in_a_cell
from bdhf.text.printable import SIGN

#: Characters that embed, override or isolate a direction of writing -> what stands there instead.
_TURNS = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), SIGN)


@cache
def template_environment() -> Environment:
    """The templates of this package."""
    environment = Environment(
        loader=PackageLoader("bdhf.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_unturned,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": number,
        "p_value": p_value,
    }
    environment.globals |= {
        "interval": interval,
        "counted": counted,
        "seeds": partial(seeds_in_a_cell, most=MOST_SEEDS),
        "policy": policy,
    }
    return environment


def _unturned(value: Any) -> Any:
    """The text, markup or not, with a sign for what turns it; what is no text stays."""
    return value.translate(_TURNS) if isinstance(value, str) and not value.isascii() else value

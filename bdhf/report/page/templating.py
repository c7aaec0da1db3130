"""The environment of templates: strict about names, with all text escaped and numbers formatted.

No text changes the direction of writing: otherwise the name of a comparison, or a comment of the
spec, could reverse the text that follows it.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bdhf.report.page.policy import policy
from bdhf.stats.inference.power import MOST_SEEDS
from bdhf.text.formatting import counted, interval, number, p_value, seeds_in_a_cell
from bdhf.text.printable import SIGN

#: Characters that embed, override or isolate a direction of writing -> their replacement.
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
    """Text, markup or not, without characters that change its direction; other values unchanged."""
    return value.translate(_TURNS) if isinstance(value, str) and not value.isascii() else value

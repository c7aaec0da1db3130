"""How templates become pages: strict about names, escaping all text, numbers for human readers."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from bdhf.report import wording
from bdhf.report.policy import policy


@cache
def environment() -> Environment:
    """The templates of this package."""
    found = Environment(
        loader=PackageLoader("bdhf.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        "number": wording.number,
        "p_value": wording.p_value,
    }
    found.globals |= {
        "interval": wording.interval,
        "counted": wording.counted,
        "seeds": wording.seeds,
        "policy": policy,
    }
    return found

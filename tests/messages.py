"""The facts of a message, names and values, in any wording."""

from __future__ import annotations

import re


def naming(*names: object) -> str:
    """A pattern, for `match`, of the messages that hold all of these, in any order."""
    return "".join(rf"(?=[\s\S]*(?<!\w){re.escape(str(name))}(?!\w))" for name in names)

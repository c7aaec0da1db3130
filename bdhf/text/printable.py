"""Untrusted text on a terminal: names, reasons, hosts, lines of a page from somebody else.

A character that moves the cursor, clears the screen, sets a title or changes the direction of
writing is shown as one sign; in a single line, so is a line break, which could begin a forged line.
"""

from __future__ import annotations

import unicodedata

#: Replaces a character that is not printed.
SIGN = "\N{REPLACEMENT CHARACTER}"

#: Unicode categories: control characters (C0, C1, DEL), format characters (directions, joiners),
#: surrogates, and separators of lines and paragraphs.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))

#: Layout of a text of several lines.
_LAYOUT = "\n\t"


def on_a_line(text: str) -> str:
    r"""A text as part of a line: no control characters, and no line breaks.

    >>> on_a_line("a\x1b[2J\nb") == f"a{SIGN}[2J{SIGN}b"
    True
    """
    return _cleaned(text, "")


def printable(text: str) -> str:
    r"""A text of several lines without control characters; line breaks and tabs stay.

    >>> printable("a\r\n\tb\u202e") == f"a{SIGN}\n\tb{SIGN}"
    True
    """
    return _cleaned(text, _LAYOUT)


def stripped_line(text: str) -> str:
    r"""A text as part of a line: spaces for line breaks and tabs, other hidden characters removed.

    >>> stripped_line("a\nb\x1b[2K")
    'a b[2K'
    """
    spaced = (" " if c.isspace() else c for c in text)
    return "".join(c for c in spaced if not unicodedata.category(c).startswith("C"))


def _cleaned(text: str, kept: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c in kept or unicodedata.category(c) not in _HIDDEN else SIGN for c in text)

"""What an inline drawing may hold: the elements and attributes that `svg` writes, and no other.

Another matplotlib draws other paths, so a drawing cannot always be held against the one that is
made here. This can: no version of it writes a script, a style, a text or a link.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree.ElementTree import ParseError, XMLParser

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"

#: Differences of one drawing of which no more are told.
_MOST_TOLD = 5

_NUMBER = r"-?\d+(\.\d+)?(e[-+]?\d+)?"
_NAME = r"[\w.-]+"
_COLOUR = r"none|currentColor|#[0-9a-f]{6}"
_WORD = r"[a-z]+"

#: Attribute -> what its whole value may be. A link stays within the page.
_VALUES: Mapping[str, str] = {
    "id": _NAME,
    "d": r"[MmLlHhVvCcQqZz\d\s.,e+-]*",
    **dict.fromkeys(("x", "y", "width", "height"), _NUMBER),
    "transform": r"((translate|scale|rotate|matrix)\([\d\s.,e+-]*\)\s*)*",
    "clip-path": rf"url\(#{_NAME}\)",
    f"{{{_XLINK}}}href": f"#{_NAME}",
    **dict.fromkeys(("fill", "stroke"), _COLOUR),
    **dict.fromkeys(("fill-opacity", "stroke-opacity", "opacity", "stroke-width"), _NUMBER),
    "stroke-dasharray": r"[\d\s.,]+",
    "stroke-dashoffset": _NUMBER,
    **dict.fromkeys(("stroke-linejoin", "stroke-linecap"), _WORD),
    "viewBox": rf"{_NUMBER}( {_NUMBER}){{3}}",
}

_INK = (
    "fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width", "stroke-linejoin",
    "stroke-linecap", "stroke-dasharray", "stroke-dashoffset", "opacity",
)  # fmt: skip

#: Element -> its attributes.
_ELEMENTS: Mapping[str, tuple[str, ...]] = {
    "g": ("id", "transform", "clip-path", *_INK),
    "path": ("id", "d", "transform", "clip-path", *_INK),
    "use": (f"{{{_XLINK}}}href", "x", "y", "transform", "clip-path", *_INK),
    "defs": (),
    "clipPath": ("id",),
    "rect": ("x", "y", "width", "height"),
}


def foreign(box: str, body: str) -> tuple[str, ...]:
    """What of a drawing no drawing of ours has, in words; () for nothing.

    `box`: the attribute viewBox of its element; `body`: what the element holds.
    """
    if re.search(r"<[!?]", body):  # comments end elsewhere in HTML than in XML; entities grow
        return ("a comment, a declaration or an instruction",)
    seen = _Seen()
    parser = XMLParser(target=seen)
    try:
        parser.feed(f'<svg xmlns="{_SVG}" xmlns:xlink="{_XLINK}" {box}>{body}</svg>')
        parser.close()
    except ParseError as error:
        seen.faults.append(f"what is no well-formed XML ({error})")
    return tuple(dict.fromkeys(seen.faults))[:_MOST_TOLD]


class _Seen:
    """Takes what the parser reads, and keeps nothing of it but the faults."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._depth = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Hold an element against the table; the outermost one is the drawing itself."""
        self._depth += 1
        name = tag.removeprefix(f"{{{_SVG}}}")
        allowed = ("viewBox",) if self._depth == 1 else _ELEMENTS.get(name)
        if allowed is None or name == tag:
            self.faults.append(f"an element {_brief(name)}")
            return
        for key, value in attributes.items():
            if key not in allowed:
                self.faults.append(f"an attribute {_brief(key)} of {name}")
            elif not re.fullmatch(_VALUES[key], value):
                self.faults.append(f"the {_brief(key)} {_brief(value)} of {name}")

    def end(self, tag: str) -> None:
        """Leave the element."""
        self._depth -= 1

    def data(self, text: str) -> None:
        """Nothing of ours is text: letters are paths."""
        if text.strip():
            self.faults.append(f"the text {_brief(text.strip())}")

    def close(self) -> None:
        """There is nothing to give back."""


def _brief(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")

"""Check that an inline drawing contains only the elements and attributes that `svg` writes.

Another version of matplotlib draws other paths, so drawings cannot always be compared. This check
holds for all versions: none of them writes a script, a style, a text or a link.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree.ElementTree import ParseError, XMLParser

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"

#: The largest number of faults that are reported for a drawing.
_MOST_LISTED = 5

_NUMBER = r"-?\d+(\.\d+)?(e[-+]?\d+)?"
_NAME = r"[\w.-]+"
_COLOUR = r"none|currentColor|#[0-9a-f]{6}"
_WORD = r"[a-z]+"

#: Attribute -> pattern of its whole value. Links stay within the page.
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


def unknown_parts(box: str, body: str) -> tuple[str, ...]:
    """The parts of a drawing that bdhf does not write, as text; () for none.

    `box`: the attribute viewBox of its element; `body`: the content of the element.
    """
    if re.search(r"<[!?]", body):  # comments end elsewhere in HTML than in XML; entities grow
        return ("a comment, a declaration or an instruction",)
    seen = _Seen()
    parser = XMLParser(target=seen)
    try:
        parser.feed(f'<svg xmlns="{_SVG}" xmlns:xlink="{_XLINK}" {box}>{body}</svg>')
        parser.close()
    except ParseError as error:
        seen.faults.append(f"malformed XML ({error})")
    return tuple(dict.fromkeys(seen.faults))[:_MOST_LISTED]


class _Seen:
    """A target of the parser that collects faults."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._depth = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Check an element against the table; the outermost element is the drawing itself."""
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
        """Report text: bdhf draws letters as paths."""
        if text.strip():
            self.faults.append(f"the text {_brief(text.strip())}")

    def close(self) -> None:
        """End without a result."""


def _brief(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")

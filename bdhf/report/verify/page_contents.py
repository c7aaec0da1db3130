"""Split a page into its lines of text and its drawings, and count its numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape

_DRAWING = re.compile(r"(<svg\b[^>]*>)(.*?)</svg>", re.DOTALL)
_BOX = re.compile(r'\bviewBox="[^"]*"')
_NAME = re.compile(r'<figure id="([^"]*)"')
_NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")

#: Parts without computed numbers: style, code, the spec, the head and the footer.
_GIVEN = re.compile(
    r'<(style|script)\b.*?</\1>|<section id="spec">.*?</section>|<footer class="carried">.*?'
    r"</footer>|<head>.*?</head>",
    re.DOTALL,
)
_LABEL = re.compile(r'\baria-label="([^"]*)"')
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class DrawnSvg:
    """An inline SVG: the name of its figure, its viewBox, and the content of its element."""

    name: str
    box: str
    body: str


@dataclass(frozen=True)
class Page:
    """The lines of a page without its drawings, their numbers in the file, and the drawings."""

    lines: tuple[str, ...]
    numbers: tuple[int, ...]
    drawings: tuple[DrawnSvg, ...]


def take_apart(html: str) -> Page:
    """Split a page. The alt text of a drawing stays among the lines."""
    lines, numbers, drawings, end = [""], [1], list[DrawnSvg](), 0

    def read(text: str, *, kept: bool = True) -> None:
        first, *rest = text.split("\n")
        at = numbers[-1] if kept else numbers[-1] + len(rest)
        if kept:
            lines[-1] += first
            lines.extend(rest)
            numbers.extend(range(at + 1, at + 1 + len(rest)))
        elif rest:  # text after the drawing is on a later line of the file
            lines.append("")
            numbers.append(at)

    for match in _DRAWING.finditer(html):
        read(html[end : match.start()])
        head, body = match.groups()
        box = _BOX.search(head)
        names = _NAME.findall(html, end, match.start())
        drawings.append(DrawnSvg(names[-1] if names else "", box[0] if box else "", body))
        read(_BOX.sub("", head))
        read(body, kept=False)
        end = match.end()
    read(html[end:])
    return Page(tuple(lines), tuple(numbers), tuple(drawings))


def count_numbers(html: str) -> int:
    """Count the numbers of a page that are computed from the records.

    Numbers in alternative texts count, numbers in the spec do not.

    >>> count_numbers("<p>hf needed 0.71× the updates (95 % interval 0.62 to 0.83)</p>")
    4
    """
    text = _GIVEN.sub(" ", html)
    labels = " ".join(_LABEL.findall(text))
    words = _TAG.sub(" ", _DRAWING.sub(" ", text))
    return len(_NUMBER.findall(unescape(f"{words} {labels}")))

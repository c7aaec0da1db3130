"""A figure as SVG bytes: dark ink on white for the disk, the ink of the page inside the page.

The same figure gives the same bytes: matplotlib's random ids are salted with the figure's name,
and no date, creator or version is written. For any label, the file is well-formed XML.

The inline SVG has no comment, no text and no `style`. Every property is an attribute, so the
Content-Security-Policy of the page needs no exception and the table of `svg_check` is short.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from html import escape

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.text import Text

from bdhf.report.page.style import INK, drawable

WHITE, DARK = "#ffffff", "#1b1f24"
_PAPER = "#010204"  # stands for the background while drawing
_GEOMETRY = re.compile(r' (?:d|x|y|width|height)="[^"]*"|translate\([^)]*\)')  # no scales
_LONG = re.compile(r"\d+\.\d{3,}")  # 1/100 of a point is invisible and takes half the file
_STYLE = re.compile(r' style="([^"]*)"')
_COMMENT = re.compile(r"<!--.*?-->\s*", re.DOTALL)
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


@dataclass(frozen=True)
class Svg:
    """A drawn figure, for the disk and for the page."""

    on_disk: bytes
    inline: str


def to_svg(figure: Figure, name: str, alt: str) -> Svg:
    """Draw once, with two inks: dark on white for the disk, the colour of the page inline.

    The inline element is transparent and labelled by `alt`. Its ids include the name of the figure,
    since all figures of a page share one document.
    """
    for label in figure.findobj(Text):
        label.set_text(drawable(label.get_text()))
    buffer = io.BytesIO()
    with (
        matplotlib.style.context("default"),  # ticks and saving are evaluated after `styled` ends
        matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the page has the name as text
        figure.savefig(buffer, format="svg", facecolor=_PAPER, metadata=_NO_METADATA)
    lines = drawable(buffer.getvalue().decode()).splitlines()
    text = "\n".join(line.rstrip() for line in lines) + "\n"
    text = _GEOMETRY.sub(lambda attribute: _LONG.sub(_rounded, attribute[0]), text)
    disk = text.replace(_PAPER, WHITE).replace(INK, DARK)
    return Svg(disk.encode(), _inline(text, _word(name), alt))


def _inline(text: str, prefix: str, alt: str) -> str:
    text = _COMMENT.sub("", text).replace(_PAPER, "none").replace(INK, "currentColor")
    text = re.sub(r"<(style|metadata)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = _STYLE.sub(_attributes, text)
    text = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", text)
    start = text.index("<svg")
    box = text[text.index("viewBox", start) :].split('"')[1]
    head = (
        f'<svg viewBox="{box}" role="img" aria-label="{escape(drawable(alt))}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return head + text[text.index(">", start) + 1 :].strip()


def _attributes(style: re.Match[str]) -> str:
    """The properties of a `style` as equivalent attributes."""
    pairs = (declared.partition(":") for declared in style[1].split(";") if declared.strip())
    return "".join(f' {name.strip()}="{value.strip()}"' for name, _, value in pairs)


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _word(name: str) -> str:
    return re.sub(r"\W", "-", name)

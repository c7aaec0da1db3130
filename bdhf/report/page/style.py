"""The style of figures: a colour, line style and marker per arm, and ink that an SVG can replace.

Every figure is drawn by matplotlib's object interface under `styled()`, so it needs no display,
touches no global figure, and does not depend on a reader's own matplotlibrc.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from math import ceil
from typing import Any, Literal

import matplotlib.style
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from bdhf.text.formatting import number

#: The colour of text, axes and grid while drawing; `svg` replaces it by the ink of the page.
INK = "#010203"

#: A figure with more lines than this is not readable.
MOST_LINES = 24

#: seaborn's "colorblind" without its pink and yellow, which vanish on a white page.
_COLOURS = tuple(
    c for i, c in enumerate(sns.color_palette("colorblind").as_hex()) if i not in (6, 8)
)
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (7, 2, 1.5, 2)), (0, (2, 1.2)), (0, (9, 3)))
_MARKERS = "osD^vPX"

WIDTH = 5.6  # inches: narrow enough for 10-point labels to stay readable on a telephone
_PANEL_HEIGHT = 2.6  # inches
_ROW_HEIGHT = 0.5  # inches
_LINE, _HANDLE = 66, 10  # widths of a line of the legend and of a handle, in characters
_CONTROL = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
DECADE = 10.0  # an axis is logarithmic if its values differ by more than this factor

_RC: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "grid.color"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "legend.labelcolor"), INK),
    "font.family": ["DejaVu Sans"],  # part of matplotlib, so every machine draws the same
    "font.size": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.handlelength": 3.4,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Look:
    """How one arm is drawn in every figure."""

    colour: str
    dashes: Any  # a linestyle of matplotlib
    marker: str

    @property
    def line(self) -> dict[str, Any]:
        """The keywords of `Axes.plot` that draw a line of this arm."""
        return {"color": self.colour, "linestyle": self.dashes}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of the report, independent of the user's settings; also a decorator."""
    with matplotlib.style.context(["default", _RC]):
        yield


def looks(arms: Sequence[str]) -> Mapping[str, Look]:
    """The look of every arm, by its position in the spec: the same in every figure.

    >>> looks(["adam", "block_hf"])["adam"].colour
    '#0173b2'
    """
    parts = zip(cycle(_COLOURS), cycle(_DASHES), cycle(_MARKERS), strict=False)
    return {a: Look(*p) for a, p in zip(arms, islice(parts, len(arms)), strict=True)}


def canvas(
    panels: int, arms: Mapping[str, Look], panel_height: float = _PANEL_HEIGHT
) -> tuple[Figure, list[Axes]]:
    """Stacked panels that share their horizontal axis, with a legend of the arms above them.

    `panel_height`: of each, in inches.
    """
    names = [literal(arm) for arm in arms]
    if len(set(names)) < len(names):  # shortened to equal names: labels of a grid are long
        names = [literal(arm, limit=_LINE - _HANDLE) for arm in arms]
    columns = max(1, min(4, _LINE // (max(map(len, names), default=0) + _HANDLE)))
    rows = ceil(len(names) / columns)
    height = 0.55 + 0.25 * rows + panel_height * panels
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    handles = [Line2D([], [], marker=look.marker, **look.line) for look in arms.values()]
    if handles:
        figure.legend(handles, names, loc="outside upper left", ncols=columns)
    return figure, list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])


def key(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """Add a legend above a figure whose marks are not arms."""
    columns = max(1, min(4, _LINE // (max(map(len, handles), default=0) + _HANDLE)))
    rows = ceil(len(handles) / columns)
    figure.set_figheight(figure.get_figheight() + 0.25 * rows)
    names = [literal(name, limit=_LINE - _HANDLE) for name in handles]
    figure.legend(list(handles.values()), names, loc="outside upper left", ncols=columns)


def literal(text: str, limit: int = 30) -> str:
    """A name that matplotlib draws literally: not as mathematics, not hidden, and shortened.

    (Before matplotlib 3.10 a legend refuses names that begin with an underscore.)

    >>> literal("a_name_that_is_much_too_long_for_a_legend")
    'a_name_that_is_…g_for_a_legend'
    """
    text = drawable(text)
    if len(text) > limit:
        text = f"{text[: limit // 2]}…{text[1 - limit // 2 :]}"
    text = text.replace("$", r"\$")
    return f"\u200b{text}" if text.startswith("_") else text


def drawable(text: str) -> str:
    r"""The text without control characters, marks of direction, and characters invalid in XML.

    >>> drawable("block\x1b[2K")
    'block[2K'
    """
    return _CONTROL.sub("", text)


def linear(axes: Axes, values: pd.Series[float]) -> None:
    """Let a horizontal axis begin at 0, with integer ticks where its values are integers."""
    axes.set_xlim(min(0.0, values.min()), 1.02 * values.max() or 1.0)
    whole = bool((values % 1 == 0).all())
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=whole))


def logarithmic(axes: Axes, name: Literal["x", "y"], low: float, high: float) -> None:
    """Make an axis from low to high logarithmic, its ticks written as 0.02 and not 2×10⁻²."""
    axes.set(**{f"{name}scale": "log"})
    axis = {"x": axes.xaxis, "y": axes.yaxis}[name]
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1e3 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value, tidy=True)))
    axis.set_minor_formatter(NullFormatter())


def listing(rows: int) -> tuple[Figure, Axes]:
    """A panel of named rows, the first on top; row i is at height i, its name above it."""
    figure = Figure(figsize=(WIDTH, 1.15 + _ROW_HEIGHT * rows), layout="constrained")
    axes = figure.subplots()
    axes.set_ylim(rows - 0.55, -0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    return figure, axes


def span(
    axes: Axes, ends: tuple[float, float], height: float, limits: tuple[float, float], colour: str
) -> None:
    """Draw a horizontal interval within the limits of a panel; an end beyond them is an arrow."""
    low, high = limits
    inside = [min(max(end, low), high) for end in ends]
    axes.plot(inside, [height, height], color=colour, lw=1.5)
    arrows = [(low, "<")] * (ends[0] < low) + [(high, ">")] * (ends[1] > high)
    for limit, arrow in arrows:
        axes.plot([limit], [height], arrow, color=colour, ms=6, clip_on=False)


def ratios(axes: Axes, low: float, high: float) -> None:
    """Make a horizontal axis of ratios from low to high: logarithmic, with ticks in any range."""
    logarithmic(axes, "x", low, high)
    axes.set_xlim(low, high)
    if high < DECADE * low:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_minor_locator(NullLocator())

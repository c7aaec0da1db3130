"""What a figure is drawn from, and what comes with it into the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from bdhf.records import Records
from bdhf.report.style import Look, looks


@dataclass(frozen=True)
class Evidence:
    """The tidy tables that figures draw.

    `survival`: columns `target` (in words), `axis` (a key of `records.AXES`), `arm`, `time` (in
    units of the axis), `surviving` (the fraction of runs not yet at the target).
    """

    records: Records
    survival: pd.DataFrame

    @property
    def looks(self) -> Mapping[str, Look]:
        """Colour, line style and marker of every arm."""
        return looks(self.records.arms)


@dataclass(frozen=True)
class View:
    """One of several ways to look at the same: the reader of the page switches between them."""

    axis: str  # a key of `records.AXES`
    scale: str  # a key of `figures.curves.SCALES`
    is_default: bool  # whether it is the scale that suits this axis


@dataclass(frozen=True)
class Drawing:
    """A figure with the words that it needs: it is named, captioned, and told to the blind."""

    name: str  # of its file: figures/<name>.svg
    section: str  # the heading of the page that it stands under
    title: str
    caption: tuple[str, ...]  # how to read it, in sentences: what is drawn, what is left out
    alt: str  # what is seen, from the data
    figure: Figure
    view: View | None = None  # None: the figure is always shown

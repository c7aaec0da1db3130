"""What a figure is drawn from, and what comes with it into the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from bdhf.records import Records
from bdhf.report.page.style import Look, looks
from bdhf.stats.result import Result
from bdhf.stats.scaling.scaling import Scaling
from bdhf.stats.summaries.ranks import Ranks

#: Which axes are logarithmic, in words of the page; where a value is not positive, none is.
SCALES: Mapping[str, str] = {
    "linear": "linear",
    "log_loss": "losses logarithmic",
    "log": "both logarithmic",
}


@dataclass(frozen=True)
class Evidence:
    """The tidy tables that figures draw.

    `survival`: columns `target` (in words), `axis` (a key of `records.AXES`), `arm`, `time` (in
    units of the axis), `surviving` (the fraction of runs not yet at the target). `profile`: that of
    `stats.profile`. `sizes`: `drawn` of `stats.scaling`, means on several axes; `scaling` are the
    fits to those of updates.
    """

    records: Records
    survival: pd.DataFrame
    results: Sequence[Result] = ()
    profile: pd.DataFrame = field(default_factory=pd.DataFrame)
    sizes: pd.DataFrame = field(default_factory=pd.DataFrame)
    scaling: Sequence[Scaling] = ()
    ranks: Sequence[Ranks] = ()

    @property
    def looks(self) -> Mapping[str, Look]:
        """Colour, line style and marker of every arm."""
        return looks(self.records.arms)

    def looks_of(self, names: Sequence[str]) -> Mapping[str, Look]:
        """The looks of lines that are arms, or else of groups of arms, which have their own."""
        looks_of_arms = self.looks
        if all(name in looks_of_arms for name in names):
            return {name: looks_of_arms[name] for name in looks_of_arms if name in names}
        return looks(names)


@dataclass(frozen=True)
class View:
    """One of several ways to look at the same: the reader of the page switches between them."""

    axis: str  # a key of `records.AXES`
    scale: str  # a key of `SCALES`
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
    group: str = ""  # figures of a group are folded together where a section has many


def by_section(drawings: Iterable[Drawing]) -> Mapping[str, tuple[Drawing, ...]]:
    """Drawings by the section of the page that they belong to, both in the order they come in."""
    sections: dict[str, tuple[Drawing, ...]] = {}
    for drawing in drawings:
        sections[drawing.section] = (*sections.get(drawing.section, ()), drawing)
    return sections

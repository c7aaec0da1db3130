"""The evidence for figures, and a figure with its caption and alternative text."""

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

#: Which axes are logarithmic, as text; an axis with a value that is not positive never is.
SCALES: Mapping[str, str] = {
    "linear": "linear",
    "log_loss": "losses logarithmic",
    "log": "both logarithmic",
}


@dataclass(frozen=True)
class Evidence:
    """The tidy tables that figures draw.

    `survival`: columns `target` (its label), `axis` (a key of `records.AXES`), `arm`, `time` (in
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
        """The looks of lines: those of arms, or for groups of arms looks of their own."""
        looks_of_arms = self.looks
        if all(name in looks_of_arms for name in names):
            return {name: looks_of_arms[name] for name in looks_of_arms if name in names}
        return looks(names)


@dataclass(frozen=True)
class View:
    """One of several views of a figure; the reader of the page can switch between them."""

    axis: str  # a key of `records.AXES`
    scale: str  # a key of `SCALES`
    is_default: bool  # whether it is the scale that suits this axis


@dataclass(frozen=True)
class Drawing:
    """A figure with its name, title, caption and alternative text."""

    name: str  # of its file: figures/<name>.svg
    section: str  # the heading of the page that it stands under
    title: str
    caption: tuple[str, ...]  # sentences: how to read it, and what is left out
    alt: str  # what it shows, from the data
    figure: Figure
    view: View | None = None  # None: always shown
    group: str = ""  # figures of a group are folded together where a section has many


def by_section(drawings: Iterable[Drawing]) -> Mapping[str, tuple[Drawing, ...]]:
    """Drawings by section of the page; sections and drawings keep their order."""
    sections: dict[str, tuple[Drawing, ...]] = {}
    for drawing in drawings:
        sections[drawing.section] = (*sections.get(drawing.section, ()), drawing)
    return sections

"""The table of figures: a new figure is one new file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bdhf.records import Records
from bdhf.report.ablation.figures.curves import curves
from bdhf.report.ablation.figures.diagnostics import diagnostics
from bdhf.report.ablation.figures.forest import forest
from bdhf.report.ablation.figures.profile import profile
from bdhf.report.ablation.figures.ranks import ranks
from bdhf.report.ablation.figures.scaling import scaling
from bdhf.report.ablation.figures.survival import survival
from bdhf.report.page.drawing import Drawing, Evidence, by_section
from bdhf.report.page.style import MOST_LINES

#: Name -> what draws it, in the order of the page. A figure with nothing to show returns ().
FIGURES: Mapping[str, Callable[[Evidence], tuple[Drawing, ...]]] = {
    "forest": forest,
    "curves": curves,
    "survival": survival,
    "profile": profile,
    "scaling": scaling,
    "ranks": ranks,
    "diagnostics": diagnostics,
}

#: Figures with a line for every arm, whatever the grid.
CROWDED = ("curves", "survival", "diagnostics")


def draw(evidence: Evidence) -> Mapping[str, tuple[Drawing, ...]]:
    """Every figure that has something to show, by the section of the page it belongs to."""
    figures = (figure for name, figure in FIGURES.items() if _is_drawn(evidence.records, name))
    return by_section(drawing for figure in figures for drawing in figure(evidence))


def _is_drawn(records: Records, name: str) -> bool:
    """Whether the spec asks for a figure, and its lines can be told apart."""
    crowded = name in CROWDED and len(records.arms) > MOST_LINES
    return records.shows(name) and not crowded

"""The table of figures: a new figure is one new file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bdhf.records import Records
from bdhf.report.ablation.figures.curves import draw_curves
from bdhf.report.ablation.figures.diagnostics import draw_diagnostics
from bdhf.report.ablation.figures.forest import draw_forest
from bdhf.report.ablation.figures.profile import draw_profile
from bdhf.report.ablation.figures.ranks import draw_ranks
from bdhf.report.ablation.figures.scaling import draw_scaling
from bdhf.report.ablation.figures.survival import draw_survival
from bdhf.report.page.drawing import Drawing, Evidence, by_section
from bdhf.report.page.style import MOST_LINES

#: Name -> what draws it, in the order of the page. An empty figure is ().
FIGURES: Mapping[str, Callable[[Evidence], tuple[Drawing, ...]]] = {
    "forest": draw_forest,
    "curves": draw_curves,
    "survival": draw_survival,
    "profile": draw_profile,
    "scaling": draw_scaling,
    "ranks": draw_ranks,
    "diagnostics": draw_diagnostics,
}

#: Figures with a line for every arm, even in a grid.
CROWDED = ("curves", "survival", "diagnostics")


def draw_figures(evidence: Evidence) -> Mapping[str, tuple[Drawing, ...]]:
    """All figures that are not empty, by section of the page."""
    figures = (figure for name, figure in FIGURES.items() if _is_drawn(evidence.records, name))
    return by_section(drawing for figure in figures for drawing in figure(evidence))


def _is_drawn(records: Records, name: str) -> bool:
    """Whether the spec asks for a figure and its lines are not too many."""
    crowded = name in CROWDED and len(records.arms) > MOST_LINES
    return records.shows(name) and not crowded

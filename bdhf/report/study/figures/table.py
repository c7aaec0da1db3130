"""The table of a study's figures: a new figure is one new file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bdhf.report.page.drawing import Drawing, by_section
from bdhf.report.study.evidence import StudyEvidence
from bdhf.report.study.figures.budget import budget
from bdhf.report.study.figures.contour import contour
from bdhf.report.study.figures.coordinates import coordinates
from bdhf.report.study.figures.front import front
from bdhf.report.study.figures.history import history
from bdhf.report.study.figures.importances import importances
from bdhf.report.study.figures.verdict_budget import verdict_budget

#: Name -> what draws it, in the order of the page. An empty figure is ().
STUDY_FIGURES: Mapping[str, Callable[[StudyEvidence], tuple[Drawing, ...]]] = {
    "verdict_budget": verdict_budget,
    "history": history,
    "budget": budget,
    "importances": importances,
    "coordinates": coordinates,
    "contour": contour,
    "front": front,
}

#: Cells beyond which there is no figure for each.
MOST_CELLS = 40

#: Figures that are drawn for each cell.
STUDY_CROWDED = ("coordinates", "contour")


def draw_study_figures(evidence: StudyEvidence) -> Mapping[str, tuple[Drawing, ...]]:
    """All figures that are not empty, by section of the page."""
    left_out = STUDY_CROWDED if len(evidence.cells) > MOST_CELLS else ()
    figures = (figure for name, figure in STUDY_FIGURES.items() if name not in left_out)
    return by_section(drawing for figure in figures for drawing in figure(evidence))

"""The table of figures: a new figure is one new file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bdhf.report.drawing import Drawing, Evidence
from bdhf.report.figures.curves import curves
from bdhf.report.figures.survival import survival

#: Name -> what draws it, in the order of the page. A figure with nothing to show returns ().
FIGURES: Mapping[str, Callable[[Evidence], tuple[Drawing, ...]]] = {
    "curves": curves,
    "survival": survival,
}


def draw(evidence: Evidence) -> Mapping[str, tuple[Drawing, ...]]:
    """Every figure that has something to show, by the section of the page it belongs to."""
    sections: dict[str, tuple[Drawing, ...]] = {}
    for figure in FIGURES.values():
        for drawing in figure(evidence):
            sections[drawing.section] = (*sections.get(drawing.section, ()), drawing)
    return sections

"""Importances: the share of each parameter in the differences between trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bdhf.report.page.drawing import Drawing
from bdhf.report.page.style import INK, WIDTH, Look, listing, literal, styled
from bdhf.report.study.evidence import CellEvidence, StudyEvidence
from bdhf.text.formatting import NONE

#: One hue from pale to deep, opaque, so that it looks the same on a page of any colour.
_SHADES = LinearSegmentedColormap.from_list("shades", ["#eaf1f7", "#0173b2", "#01375c"])
_CELL = 0.42  # inches: height of a row of the heat map


def importances(evidence: StudyEvidence) -> tuple[Drawing, ...]:
    """Bars if every arm has one cell; otherwise a heat map per arm, batch sizes left to right."""
    cells_by_arm = {
        name: tuple(cell for cell in cells if cell.arm.importances)
        for name, cells in evidence.by_name.items()
    }
    cells_by_arm = {name: cells for name, cells in cells_by_arm.items() if cells}
    if not cells_by_arm:
        return ()
    if all(len(cells) == 1 for cells in cells_by_arm.values()):
        cells = [cells[0] for cells in cells_by_arm.values()]
        return (_drawing("importances", "Every arm", cells, bars(cells, evidence.looks)),)
    return tuple(
        _drawing(f"importances_{index}", name, cells, heat(cells))
        for index, (name, cells) in enumerate(cells_by_arm.items(), start=1)
    )


@styled()
def bars(cells: Sequence[CellEvidence], looks: Mapping[str, Look]) -> Figure:
    """A bar per parameter, arm by arm, the most important first."""
    rows = [(cell, name, share) for cell in cells for name, share in _sorted(cell).items()]
    figure, axes = listing(len(rows))
    for row, (cell, name, share) in enumerate(rows):
        colour = looks[cell.arm.name].colour
        axes.barh(row, share, height=0.3, color=colour)
        words = f"{literal(cell.arm.name)}: {literal(name, limit=36)}"
        axes.annotate(words, (0, row - 0.42), xycoords=("axes fraction", "data"),
                      va="center", fontsize=9)  # fmt: skip
        axes.annotate(f" {share:.0%}", (share, row), va="center", fontsize=9)
    axes.set_xlim(0, 1.1 * max(0.1, *(share for _, _, share in rows)))
    axes.set_xlabel("importance: share of 1 within an arm")
    return figure


@styled()
def heat(cells: Sequence[CellEvidence]) -> Figure:
    """A row per parameter, a column per cell of one arm; a dash for a parameter without a share."""
    names = list(dict.fromkeys(name for cell in cells for name in cell.arm.importances))
    table = np.array([[cell.arm.importances.get(n, np.nan) for cell in cells] for n in names])
    names = [names[i] for i in np.argsort(-np.nan_to_num(table).mean(axis=1), kind="stable")]
    figure = Figure(figsize=(WIDTH, 0.9 + _CELL * len(names)), layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(names):
        for column, cell in enumerate(cells):
            share = cell.arm.importances.get(name)
            ink = INK if share is None else "#fcfcfc" if share > 0.35 else "#101418"
            if share is not None:
                axes.add_patch(_tile(column, row, share))
            axes.annotate(NONE if share is None else f"{share:.0%}", (column, row), ha="center",
                          va="center", fontsize=9, color=ink)  # fmt: skip
    axes.set(xlim=(-0.5, len(cells) - 0.5), ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), [literal(name, limit=24) for name in names])
    values = [" / ".join(cell.arm.values.values()) or "all" for cell in cells]
    axes.set_xticks(range(len(cells)), [literal(value, limit=14) for value in values])
    axes.set_xlabel(literal(" / ".join(cells[0].arm.values), limit=60))
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _tile(column: int, row: int, share: float) -> Rectangle:
    colour = _SHADES(min(1.0, max(0.0, share)))
    return Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, facecolor=colour, linewidth=0)


def _sorted(cell: CellEvidence) -> dict[str, float]:
    return dict(sorted(cell.arm.importances.items(), key=lambda item: -item[1]))


def _drawing(name: str, title: str, cells: Sequence[CellEvidence], figure: Figure) -> Drawing:
    return Drawing(
        name=name,
        section="Importances",
        title=title,
        caption=(
            "Share of each parameter alone in what distinguishes the good trials of an arm "
            "(PED-ANOVA). It holds for these trials and ranges: a parameter that is good "
            "throughout its range has a share of 0, and a wider range can change it.",
        ),
        alt=f"Importance of the parameters: {'; '.join(_words(cell) for cell in cells)}.",
        figure=figure,
    )


def _words(cell: CellEvidence) -> str:
    shares = [f"{name} {share:.0%}" for name, share in _sorted(cell).items()]
    return f"{cell.arm.label} {', '.join(shares)}"

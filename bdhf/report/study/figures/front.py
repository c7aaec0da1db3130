"""The Pareto front: trials by two objectives, and those that no other trial dominates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bdhf.report.page.drawing import Drawing
from bdhf.report.page.style import DECADE, Look, canvas, literal, logarithmic, styled
from bdhf.report.study.evidence import CellEvidence, StudyEvidence, axis_label
from bdhf.text.formatting import counted, number

_HEIGHTS = {1: 3.0}
_STACKED = 2.2


def front(evidence: StudyEvidence) -> tuple[Drawing, ...]:
    """One figure for the first objective with each other objective; () for a single objective."""
    first, *others = evidence.records.study.objectives
    drawings = []
    for index, other in enumerate(others, start=1):
        groups = {
            where: tuple(cell for cell in cells if len(_known(cell, first, other)))
            for where, cells in evidence.by_place.items()
        }
        groups = {where: cells for where, cells in groups.items() if cells}
        if groups:
            drawings.append(
                Drawing(
                    name=f"front_{index}" if len(others) > 1 else "front",
                    section="Front",
                    title=f"{_capital(axis_label(first))}, and {axis_label(other)}",
                    caption=_caption(len(others)),
                    alt=_alt(groups, first, other),
                    figure=fronts(groups, (first, other), evidence.looks, steps=len(others) == 1),
                )
            )
    return tuple(drawings)


@styled()
def fronts(
    groups: Mapping[str, Sequence[CellEvidence]],
    objectives: tuple[str, str],
    looks: Mapping[str, Look],
    *,
    steps: bool,
) -> Figure:
    """A panel per combination of the grid; `steps`: join the front of two objectives."""
    names = {cell.arm.name for cells in groups.values() for cell in cells}
    seen = {name: look for name, look in looks.items() if name in names}
    figure, panels = canvas(len(groups), seen, _HEIGHTS.get(len(groups), _STACKED))
    tables = [_known(cell, *objectives) for cells in groups.values() for cell in cells]
    for axes, (where, cells) in zip(panels, groups.items(), strict=True):
        for cell in cells:
            _cell(axes, _known(cell, *objectives), objectives, looks[cell.arm.name], steps=steps)
        axes.set_title(literal(where, limit=60), loc="left", fontsize=9)
    for name, objective in (("x", objectives[0]), ("y", objectives[1])):
        values = pd.concat([table[objective] for table in tables])
        if values.min() > 0 and values.max() > DECADE * values.min():
            for axes in panels:
                logarithmic(axes, name, values.min(), values.max())  # type: ignore[arg-type]
    panels[-1].set_xlabel(axis_label(objectives[0]))
    panels[len(panels) // 2].set_ylabel(axis_label(objectives[1]))
    return figure


def _cell(
    axes: Axes, table: pd.DataFrame, objectives: tuple[str, str], look: Look, *, steps: bool
) -> None:
    x, y = (table[objective].to_numpy(float) for objective in objectives)
    best = table["on_front"].to_numpy(bool)
    axes.plot(x[~best], y[~best], look.marker, color=look.colour, markerfacecolor="none", alpha=0.6)
    axes.plot(x[best], y[best], look.marker, color=look.colour, ms=6.5, zorder=3)
    if steps:
        order = np.argsort(x[best], kind="stable")
        axes.step(x[best][order], y[best][order], where="post", lw=1.4, **look.line)


def _known(cell: CellEvidence, first: str, other: str) -> pd.DataFrame:
    """The trials with a value in both objectives; a miss has that of the horizon."""
    table = cell.trials
    values = {name: table[name].clip(upper=cell.arm.horizons.get(name)) for name in (first, other)}
    table = table.assign(**values)
    rows: pd.DataFrame = table[np.isfinite(table[[first, other]].to_numpy(float)).all(axis=1)]
    return rows


def _caption(others: int) -> tuple[str, ...]:
    line = "; the line joins them" if others == 1 else ", over all objectives"
    return (
        "Point: trial; lower and further left is better. Filled: trials that no other trial of the "
        f"arm dominates{line}. A miss has the value of the horizon.",
    )


def _alt(groups: Mapping[str, Sequence[CellEvidence]], first: str, other: str) -> str:
    words = []
    for cells in groups.values():
        for cell in cells:
            table = _known(cell, first, other)
            rows = table[table["on_front"]]
            ends = [f"{number(rows[name].min())} to {number(rows[name].max())}"
                    for name in (first, other)]  # fmt: skip
            trials = counted(len(rows), "trial")
            words.append(f"{cell.arm.label} {trials}, {ends[0]} by {ends[1]}")
    return (
        f"Trials on the front of {axis_label(first)} and {axis_label(other)}: {'; '.join(words)}."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

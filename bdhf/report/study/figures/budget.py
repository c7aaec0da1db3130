"""Budget curves: the expected best of k trials of an arm, and the best of the first k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bdhf.records import unit_of
from bdhf.report.page.drawing import Drawing
from bdhf.report.page.formatting import listed
from bdhf.report.page.style import DECADE, Look, canvas, literal, logarithmic, styled
from bdhf.report.study.evidence import CellEvidence, StudyEvidence, question
from bdhf.text.formatting import counted, number, percent

_Style = Literal["default", "steps-post"]


def budget(evidence: StudyEvidence) -> tuple[Drawing, ...]:
    """One figure per combination of the grid, with a line for every arm."""
    groups = {where: [c for c in g if c.expected] for where, g in evidence.by_place.items()}
    groups = {where: cells for where, cells in groups.items() if cells}
    asked = question(evidence.records, evidence.objective)
    return tuple(
        Drawing(
            name=f"budget_{index}" if len(groups) > 1 else "budget",
            section="Budget curves",
            title=where or asked[:1].upper() + asked[1:],
            caption=_caption(evidence),
            alt=f"Expected best of k trials, {asked}: {'; '.join(_words(c) for c in cells)}.",
            figure=budget_curves(cells, evidence.objective, evidence.looks),
        )
        for index, (where, cells) in enumerate(groups.items(), start=1)
    )


@styled()
def budget_curves(
    cells: Sequence[CellEvidence], objective: str, looks: Mapping[str, Look]
) -> Figure:
    """The expected best of k trials above, the best so far below; a line for every cell."""
    names = [cell.arm.name for cell in cells]
    figure, (above, below) = canvas(2, {name: looks[name] for name in names}, 2.3)
    for cell in cells:
        look, expected = looks[cell.arm.name], cell.expected
        if expected is not None:
            k = np.arange(1, len(expected.mean) + 1)
            _line(above, k, (expected.low, expected.mean, expected.high), look, "default")
        order = [
            cell.so_far[name].clip(upper=cell.horizon).tolist() for name in ("low", "best", "high")
        ]
        _line(below, np.arange(1, len(cell.so_far) + 1), order, look, "steps-post")
    unit = literal(unit_of(objective), limit=26)
    for axes, words in ((above, "expected best of k"), (below, "best of the first k")):
        axes.set_ylabel(f"{words},\n{unit}")
        _scale(axes, [float(v) for line in axes.lines for v in np.asarray(line.get_ydata())])
    below.set_xlabel("trials k")
    below.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return figure


def _line(
    axes: Axes, k: np.ndarray, band: Sequence[Sequence[float]], look: Look, style: _Style
) -> None:
    low, middle, high = (np.asarray(line, float) for line in band)
    axes.fill_between(k, low, high, color=look.colour, alpha=0.16, lw=0,
                      step="post" if style == "steps-post" else None)  # fmt: skip
    axes.plot(k, middle, drawstyle=style, **look.line)
    axes.plot(k[-1:], middle[-1:], look.marker, color=look.colour, clip_on=False, zorder=3)


def _scale(axes: Axes, values: list[float]) -> None:
    finite = [value for value in values if np.isfinite(value)]
    if finite and min(finite) > 0 and max(finite) > DECADE * min(finite):
        logarithmic(axes, "y", min(finite), max(finite))


def _caption(evidence: StudyEvidence) -> tuple[str, ...]:
    level = percent(1 - evidence.records.study.alpha)
    short = [
        f"{cell.arm.label} {cell.arm.finished} of {evidence.records.study.trials}"
        for cell in evidence.cells
        if cell.arm.finished < evidence.records.study.trials
    ]
    parts = [
        "Above: expected best of k trials drawn with replacement from those of an arm; band: "
        f"{level} of such draws. Below: best of the first k trials, in the order in which they "
        "were made; band: smallest to largest value of the best trial over the tuning seeds. A "
        "trial that missed, was pruned or failed counts as a miss. Lower is better.",
    ]
    if short:
        parts.append(f"Incomplete: {listed(short)} trials.")
    return tuple(parts)


def _words(cell: CellEvidence) -> str:
    mean = cell.expected.mean if cell.expected else ()
    return (
        f"{cell.arm.name} from {number(mean[0])} with 1 trial to {number(mean[-1])} with "
        f"{counted(len(mean), 'trial')}"
    )

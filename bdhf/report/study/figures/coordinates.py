"""Parallel coordinates: a line per trial through its settings, down to its value."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bdhf.records import Parameter
from bdhf.report.page.drawing import Drawing
from bdhf.report.page.style import DECADE, INK, WIDTH, literal, styled
from bdhf.report.study.evidence import HIT, CellEvidence, StudyEvidence, axis_label
from bdhf.text.formatting import counted, number

#: Good to bad: distinguishable by the colour-blind, and visible on light and dark pages.
_COLOURS = LinearSegmentedColormap.from_list("good to bad", ["#0173b2", "#8f8a80", "#de8f05"])
_ROW = 0.62  # inches from one parameter to the next
_LEAST = 2  # trials


def coordinates(evidence: StudyEvidence) -> tuple[Drawing, ...]:
    """One figure for each cell with at least two trials."""
    cells = [cell for cell in evidence.cells if len(cell.trials) >= _LEAST and cell.arm.space]
    return tuple(
        Drawing(
            name=f"coordinates_{index}" if len(cells) > 1 else "coordinates",
            section="Parallel coordinates",
            title=cell.arm.label,
            caption=_CAPTION,
            alt=_words(cell, evidence.objective),
            figure=parallel_lines(cell, evidence.objective),
            group=cell.arm.name,
        )
        for index, cell in enumerate(cells, start=1)
    )


@styled()
def parallel_lines(cell: CellEvidence, objective: str) -> Figure:
    """A row per parameter, low values on the left, and the value of the trial in the last row."""
    space = cell.arm.space
    value, ends = _scaled_values(cell, objective)
    rows = [*(_scaled(cell.places[p.name].to_numpy(float), p) for p in space), value]
    table = np.array(rows).T  # (trials, rows)
    figure = Figure(figsize=(WIDTH, 0.7 + _ROW * len(rows)), layout="constrained")
    axes = figure.subplots()
    height = np.arange(len(rows))
    best = (cell.trials["trial"] == cell.arm.best).to_numpy()
    for is_best, row in sorted(zip(best, table.tolist(), strict=True), key=lambda line: line[0]):
        _trial(axes, np.array(row), height, is_best=bool(is_best))
    words = [f"{literal(p.name, limit=24)}\n{_range(p)}" for p in space]
    words.append(f"{literal(axis_label(objective), limit=28)}\n{ends}")
    axes.set_yticks(height, words)
    for row, parameter in enumerate(space):
        _choices(axes, row, parameter)
    axes.set(xlim=(-0.04, 1.04), ylim=(len(rows) - 0.7, -0.55), xticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis="x", visible=False)
    axes.grid(axis="y", alpha=0.6)
    return figure


def _trial(axes: Axes, row: NDArray[np.float64], height: np.ndarray, *, is_best: bool) -> None:
    """One line with a dot at each setting, and a gap at settings that the trial does not have."""
    unknown = not np.isfinite(row[-1])
    colour = INK if unknown else _COLOURS(float(row[-1]))
    width, alpha = (3.0, 1.0) if is_best else (1.1, 0.35 if unknown else 0.75)
    style: dict[str, Any] = {
        "color": colour,
        "alpha": alpha,
        "lw": width,
        "solid_joinstyle": "round",
    }
    axes.plot(
        row, height, marker="o", ms=5.5 if is_best else 3, zorder=4 if is_best else 2, **style
    )


def _scaled(values: NDArray[np.float64], parameter: Parameter) -> NDArray[np.float64]:
    """The positions of values in their range, 0 to 1."""
    if parameter.choices:
        last = len(parameter.choices) - 1
        return values / last if last else values * 0 + 0.5
    low, high = parameter.low or 0.0, parameter.high or 1.0
    if parameter.scale == "log":
        values, low, high = np.log(values), np.log(low), np.log(high)
    return (values - low) / ((high - low) or 1.0)


def _scaled_values(cell: CellEvidence, objective: str) -> tuple[NDArray[np.float64], str]:
    """Values from the best of the cell (0) to its worst or the horizon (1), and both as text."""
    kinds = cell.trials["kind"].to_numpy()
    values = cell.trials[objective].to_numpy(float)
    values = np.minimum(np.where(kinds == "pruned", np.nan, values), cell.horizon)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return values, "no value"
    low, high = float(finite.min()), float(finite.max())
    logs = low > 0 and high > DECADE * low
    scaled = np.log(values / low) / np.log(high / low) if logs else (values - low) / (
        (high - low) or 1.0
    )  # fmt: skip
    missed = " or more" if (kinds != HIT).any() and high == cell.horizon else ""
    scale = ", log" if logs else ""
    return scaled, f"{number(low)} to {number(high)}{missed}{scale}"


def _range(parameter: Parameter) -> str:
    if parameter.choices:
        return counted(len(parameter.choices), "choice")
    ends = f"{number(parameter.low, tidy=True)} to {number(parameter.high, tidy=True)}"
    return ends + ", log" * (parameter.scale == "log")


def _choices(axes: Axes, row: int, parameter: Parameter) -> None:
    """Write the names of choices above their positions; they share the width."""
    last = len(parameter.choices) - 1
    room = max(6, 44 // max(1, last + 1))
    for index, choice in enumerate(parameter.choices):
        x = index / last if last else 0.5
        align = "center" if 0 < x < 1 else "left" if x == 0 else "right"
        axes.annotate(literal(choice, limit=room), (x, row), xytext=(0, 7), ha=align,
                      textcoords="offset points", fontsize=9)  # fmt: skip


_CAPTION = (
    "Each line is a trial: blue is good, orange is bad, thick is the best. Each row is a "
    "parameter, from the low to the high end of its range. A gap marks a parameter that belongs to "
    "another choice. A thin line in the colour of the text is a pruned trial, which has no value.",
)


def _words(cell: CellEvidence, objective: str) -> str:
    values, ends = _scaled_values(cell, objective)
    finite = int(np.isfinite(values).sum())
    names = ", ".join(p.name for p in cell.arm.space)
    return (
        f"Settings ({names}) and value of {counted(len(cell.trials), 'trial')} of "
        f"{cell.arm.label}, {finite} with a value: {ends}."
    )

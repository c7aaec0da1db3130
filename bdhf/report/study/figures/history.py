"""History: the value of every trial in the order in which they were made, and the best so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bdhf.report.page.drawing import Drawing
from bdhf.report.page.formatting import listed
from bdhf.report.page.style import DECADE, INK, Look, canvas, key, literal, logarithmic, styled
from bdhf.report.study.evidence import (
    FAILED,
    HIT,
    MISSED,
    CellEvidence,
    StudyEvidence,
    axis_label,
    question,
)
from bdhf.stats.studies.trials import PRUNED
from bdhf.text.formatting import counted, number

_HEIGHTS = {1: 2.6}  # inches of a panel, by the number of panels
_STACKED = 1.7
#: The mark of a trial by how it ended: its marker, and whether it is filled.
_MARKS = {HIT: ("o", True), MISSED: ("o", False), FAILED: ("X", True), PRUNED: ("|", True)}


def history(evidence: StudyEvidence) -> tuple[Drawing, ...]:
    """One figure per arm of the spec, with a panel for each of its batch sizes."""
    groups = evidence.by_name
    return tuple(
        Drawing(
            name=f"history_{index}" if len(groups) > 1 else "history",
            section="History",
            title=name,
            caption=_caption(evidence),
            alt=f"{question(evidence.records, evidence.objective)} of every trial: "
            f"{'; '.join(_words(cell) for cell in cells)}.",
            figure=trial_history(cells, evidence.objective, evidence.looks[name]),
        )
        for index, (name, cells) in enumerate(groups.items(), start=1)
    )


@styled()
def trial_history(cells: Sequence[CellEvidence], objective: str, look: Look) -> Figure:
    """A panel per cell, trials from left to right."""
    figure, panels = canvas(len(cells), {}, _HEIGHTS.get(len(cells), _STACKED))
    limits = [_limits(cell, objective) for cell in cells]
    logs = all(low > 0 for low, _ in limits) and any(high > DECADE * low for low, high in limits)
    for axes, cell, ends in zip(panels, cells, limits, strict=True):
        _panel(axes, cell, objective, look)
        _scale(axes, *ends, logs=logs)
    panels[-1].set_xlabel("trial")
    panels[-1].xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    panels[len(panels) // 2].set_ylabel(axis_label(objective))
    seen = [kind for kind in _MARKS if any((c.trials["kind"] == kind).any() for c in cells)]
    handles = {"best so far": Line2D([], [], color=look.colour)}
    handles |= {kind: Line2D([], [], ls="", **_mark(kind, look)) for kind in seen}
    if any(objective in cell.arm.horizons for cell in cells):
        handles["horizon"] = Line2D([], [], color=INK, ls=":", lw=1.2)
    key(figure, handles)
    return figure


def _panel(axes: Axes, cell: CellEvidence, objective: str, look: Look) -> None:
    table, best = cell.trials, cell.so_far
    if objective in cell.arm.horizons:
        axes.axhline(cell.horizon, color=INK, ls=":", lw=1.2)
    axes.step(best["trial"], best["best"], where="post", color=look.colour, lw=1.6)
    for kind in _MARKS:
        rows = table[table["kind"] == kind]
        if kind == PRUNED:  # without a value: on the upper edge
            position = axes.get_xaxis_transform()
            axes.plot(
                rows["trial"], [0.95] * len(rows), ls="", transform=position, **_mark(kind, look)
            )
        else:
            axes.plot(rows["trial"], rows[objective], ls="", zorder=3, **_mark(kind, look))
    if cell.where:
        axes.set_title(literal(cell.where, limit=60), loc="left", fontsize=9)


def _limits(cell: CellEvidence, objective: str) -> tuple[float, float]:
    """The smallest and largest value of a cell, including its horizon."""
    values = cell.trials[objective].to_numpy(float)
    seen = values[np.isfinite(values)].tolist()
    seen += [cell.horizon] if objective in cell.arm.horizons else []
    return min(seen, default=0.0), max(seen, default=1.0)


def _scale(axes: Axes, low: float, high: float, *, logs: bool) -> None:
    """Set the vertical axis, with room above for the marks of pruned trials."""
    if logs:
        logarithmic(axes, "y", low, high)
        axes.set_ylim(low / 1.25, high * 1.6)
    else:
        room = 0.1 * (high - low or 1.0)
        axes.set_ylim(low - room, high + 2 * room)


def _mark(kind: str, look: Look) -> dict[str, Any]:
    marker, filled = _MARKS[kind]
    colour = look.colour if kind in (HIT, MISSED) else INK
    return {
        "marker": marker,
        "color": colour,
        "markerfacecolor": colour if filled else "none",
        "markersize": 9 if marker == "|" else 5.5,
        "markeredgewidth": 1.6 if marker == "|" else 1.0,
    }


def _caption(evidence: StudyEvidence) -> tuple[str, ...]:
    seeds = counted(len(evidence.records.study.seeds), "tuning seed")
    parts = [
        f"Point: mean of a trial over {seeds}; line: best so far. Trial 0 uses the settings of the "
        "spec."
    ]
    if any(evidence.objective in cell.arm.horizons for cell in evidence.cells):
        parts.append("Dotted: the horizon, which is the cost of a miss.")
    kinds = {kind for cell in evidence.cells for kind in cell.trials["kind"]}
    if MISSED in kinds:
        parts.append(
            "Above the horizon, no run of the trial reached the target; lower points came nearer "
            "to it."
        )
    if FAILED in kinds:
        parts.append("A failed or diverged trial counts as two horizons.")
    if PRUNED in kinds:
        parts.append("A pruned trial has no value and is marked on the upper edge.")
    return tuple(parts)


def _words(cell: CellEvidence) -> str:
    """What the panel of a cell shows: its best value and trial, and trials that did not hit."""
    kinds = cell.trials["kind"].value_counts()
    lost = [f"{kinds[kind]} {kind}" for kind in _MARKS if kind != HIT and kind in kinds]
    ended = f", {listed(lost)}" if lost else ""
    last = cell.so_far.iloc[-1]
    if np.isnan(last["best"]):
        return f"{cell.arm.label} without a value in {counted(len(cell.trials), 'trial')}{ended}"
    return (
        f"{cell.arm.label} falls to {number(last['best'])} at trial {last['incumbent']:.0f} of "
        f"{len(cell.trials)}{ended}"
    )

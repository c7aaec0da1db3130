"""Contours: the value of trials over their two most important numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from matplotlib.tri import Triangulation
from numpy.typing import NDArray
from scipy.spatial import Delaunay, QhullError

from bdhf.records import Parameter
from bdhf.report.page.drawing import Drawing
from bdhf.report.page.style import DECADE, WIDTH, literal, styled
from bdhf.report.study.evidence import HIT, CellEvidence, StudyEvidence, axis_label
from bdhf.text.formatting import counted, number

_LEAST_POINTS = 6  # of a surface; fewer are drawn as points
_LEVELS = 9
_POINT, _EDGE = "#fcfcfc", "#101418"  # visible on every colour of the surface


@dataclass(frozen=True)
class Surface:
    """Trials of a cell over two parameters, in the units in which they are drawn."""

    x: NDArray[np.float64]  # (points,), the logarithm where the range is logarithmic
    y: NDArray[np.float64]
    value: NDArray[np.float64]  # misses at the horizon
    hit: NDArray[np.bool_]
    best: NDArray[np.bool_]
    names: tuple[Parameter, Parameter]
    logs: bool  # whether `value` is a logarithm

    @property
    def triangles(self) -> NDArray[np.int32] | None:
        """The triangles of a triangulation; None where points are too few or on one line."""
        points = np.unique(np.column_stack([self.x, self.y]), axis=0)
        if len(points) < _LEAST_POINTS or np.ptp(self.value) == 0:
            return None
        spans = np.ptp(points, axis=0)
        try:
            triangulation = Delaunay(
                (np.column_stack([self.x, self.y]) - points.min(axis=0)) / spans
            )
        except (QhullError, ValueError):  # on a line; a span of 0 makes NaN
            return None
        return np.asarray(triangulation.simplices, dtype=np.int32)


def contour(evidence: StudyEvidence) -> tuple[Drawing, ...]:
    """One figure for each cell with two numbers that vary together."""
    candidates = [(cell, surface(cell, evidence.objective)) for cell in evidence.cells]
    drawn = [(cell, trials) for cell, trials in candidates if trials is not None]
    return tuple(
        Drawing(
            name=f"contour_{index}" if len(drawn) > 1 else "contour",
            section="Contours",
            title=cell.arm.label,
            caption=_caption(cell, trials),
            alt=_words(cell, trials),
            figure=surfaces(trials, evidence.objective),
            group=cell.arm.name,
        )
        for index, (cell, trials) in enumerate(drawn, start=1)
    )


def surface(cell: CellEvidence, objective: str) -> Surface | None:
    """The trials of a cell over its two most important numbers; None if it has fewer than two.

    A learning rate and a damping come first, then others by their importance.
    """
    chosen = _chosen(cell)
    values = cell.trials[objective].to_numpy(float)
    if chosen is None or not np.isfinite(cell.horizon):
        return None
    x, y = (_drawn(cell.places[p.name].to_numpy(float), p) for p in chosen)
    is_known = np.isfinite(values) & np.isfinite(x) & np.isfinite(y)
    if not is_known.any():
        return None
    values = np.minimum(values, cell.horizon)[is_known]
    logs = bool(values.min() > 0 and values.max() > DECADE * values.min())
    return Surface(
        x=x[is_known],
        y=y[is_known],
        value=np.log10(values) if logs else values,
        hit=(cell.trials["kind"] == HIT).to_numpy()[is_known],
        best=(cell.trials["trial"] == cell.arm.best).to_numpy()[is_known],
        names=chosen,
        logs=logs,
    )


@styled()
def surfaces(trials: Surface, objective: str) -> Figure:
    """Filled contours if there are enough points, and every trial as a point."""
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    axes = figure.subplots()
    triangles = trials.triangles
    if triangles is not None:
        grid = Triangulation(trials.x, trials.y, triangles)
        drawn = axes.tricontourf(grid, trials.value, levels=_LEVELS, cmap="cividis")
        bar = figure.colorbar(drawn, ax=axes, pad=0.02, aspect=30)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: _shown(v, logs=trials.logs)))
        bar.set_label(f"{axis_label(objective)} (dark: better)")
    for kind, face, edge in ((trials.hit, _EDGE, _POINT), (~trials.hit, _POINT, _EDGE)):
        is_plain = kind & ~trials.best
        axes.scatter(trials.x[is_plain], trials.y[is_plain], s=22, facecolor=face, edgecolor=edge,
                     linewidth=0.9, zorder=3)  # fmt: skip
    axes.scatter(trials.x[trials.best], trials.y[trials.best], s=230, marker="*",
                 facecolor="#ffc20a", edgecolor=_EDGE, linewidth=1.0, zorder=4)  # fmt: skip
    _axis(axes, "x", trials.names[0], trials.x)
    _axis(axes, "y", trials.names[1], trials.y)
    return figure


def _chosen(cell: CellEvidence) -> tuple[Parameter, Parameter] | None:
    """The parameters of both axes; None for fewer than two numbers."""
    weights = cell.arm.importances
    seen = cell.places.notna().sum()
    numbers = [p for p in cell.arm.space if not p.choices and seen[p.name]]
    numbers.sort(key=lambda p: (-weights.get(p.name, 0.0), -int(seen[p.name])))
    if len(numbers) < 2:
        return None
    x = next((p for p in numbers if p.name.endswith("lr")), numbers[0])
    rest = [p for p in numbers if p is not x]
    best = cell.places[cell.places.index == cell.arm.best].notna().any()
    damped = [p for p in rest if "damping" in p.name]
    damped.sort(key=lambda p: (not best[p.name], -int(seen[p.name])))
    return x, (damped or rest)[0]


def _drawn(values: NDArray[np.float64], parameter: Parameter) -> NDArray[np.float64]:
    return np.log10(values) if parameter.scale == "log" else values


def _axis(axes: Axes, name: str, parameter: Parameter, values: NDArray[np.float64]) -> None:
    """An axis over the values of trials, with ticks in the units of the parameter."""
    axis = {"x": axes.xaxis, "y": axes.yaxis}[name]
    room = 0.06 * (float(np.ptp(values)) or 1.0)
    low, high = float(values.min()) - room, float(values.max()) + room
    axes.set(**{f"{name}lim": (low, high)})
    logs = parameter.scale == "log"
    if logs:
        steps = (1, 2, 5) if high - low < 3 else (1,)
        places = [e + np.log10(s) for e in range(int(low) - 2, int(high) + 2) for s in steps]
        axis.set_major_locator(FixedLocator([p for p in places if low <= p <= high]))
    else:
        axis.set_major_locator(MaxNLocator(6))
    axis.set_major_formatter(FuncFormatter(lambda v, _: _shown(v, logs=logs)))
    axes.set(**{f"{name}label": literal(parameter.name, limit=34) + "\n(log scale)" * logs})


def _shown(value: float, *, logs: bool) -> str:
    return number(10**value if logs else value, tidy=True)


def _caption(cell: CellEvidence, trials: Surface) -> tuple[str, ...]:
    whole = trials.triangles is not None
    parts = [
        "Dark point: trial; light point: trial that missed the target; star: best trial. "
        + ("Colours are interpolated linearly on triangles, with misses at the horizon. The trials "
           "also differ in other parameters, so this is a projection." if whole else
           "No interpolation, because trials are too few, on one line or of one value.")
    ]  # fmt: skip
    left = len(cell.trials) - len(trials.x)
    if left:
        parts.append(
            f"Not shown: {counted(left, 'trial')} without a value or without one of the parameters."
        )
    return tuple(parts)


def _words(cell: CellEvidence, trials: Surface) -> str:
    x, y = trials.names
    text = (
        f"{counted(len(trials.x), 'trial')} of {cell.arm.label} over {x.name} and {y.name}, with "
        f"values from {_shown(float(trials.value.min()), logs=trials.logs)} to "
        f"{_shown(float(trials.value.max()), logs=trials.logs)}"
    )
    if not trials.best.any():
        return f"{text}."
    at = [_shown(float(v[trials.best][0]), logs=p.scale == "log")
          for v, p in ((trials.x, x), (trials.y, y))]  # fmt: skip
    return f"{text}; the best at {x.name} {at[0]} and {y.name} {at[1]}."

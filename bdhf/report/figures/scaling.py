"""Batch scaling: updates to the target against the batch size, with the critical batch size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bdhf.report.drawing import Drawing, Evidence
from bdhf.report.style import Look, canvas, logarithmic, span, styled
from bdhf.report.tuning import per_batch_size
from bdhf.report.wording import counted, listed, number
from bdhf.stats.scaling import Scaling

MOST_LINES = 24  # beyond them they can no longer be read
_FEW = 30  # seeds, below which the bootstrap is known to be narrow
_NEAR = 4.0  # B_crit is marked up to this factor beyond the sizes that were run


def scaling(evidence: Evidence) -> tuple[Drawing, ...]:
    """One figure per target with a fit; none where no group of arms has one."""
    targets = list(dict.fromkeys(found.target for found in evidence.scaling))
    return tuple(
        drawing
        for place, target in enumerate(targets, start=1)
        for drawing in _drawn(evidence, target, f"_{place}" if len(targets) > 1 else "")
    )


@styled()
def fits(sizes: pd.DataFrame, found: Sequence[Scaling], looks: Mapping[str, Look]) -> Figure:
    """Points and fitted lines, both axes logarithmic.

    `sizes`: columns `group, size` (samples), `updates, hits, runs`.
    """
    figure, (axes,) = canvas(1, looks)
    low, high = _limits(sizes["size"], found)
    for group, points in sizes.groupby("group", sort=False):
        _points(axes, points, looks[str(group)])
    for one in found:
        _fit(axes, one, looks[one.group], (low, high))
    logarithmic(axes, "x", low, high)
    axes.set_yscale("log")
    bottom, top = axes.get_ylim()
    logarithmic(axes, "y", bottom, top)
    axes.set_ylim(bottom, top * (top / bottom) ** 0.07)  # room for arrows
    axes.set(xlim=(low, high), xlabel="batch size, samples (log scale)")
    axes.set_ylabel("updates to the target\n(log scale)")
    return figure


def _drawn(evidence: Evidence, target: str, suffix: str) -> tuple[Drawing, ...]:
    sizes = evidence.sizes[evidence.sizes["target"] == target]
    found = [one for one in evidence.scaling if one.target == target]
    groups = list(sizes["group"].drop_duplicates())
    if len(groups) > MOST_LINES:
        return ()
    drawing = Drawing(
        name=f"scaling{suffix}",
        section="Batch scaling",
        title=f"Updates to {target}",
        caption=(
            *_caption(sizes, found, evidence.records.alpha),
            per_batch_size(evidence.records, [str(group) for group in groups]),
        ),
        alt=f"Updates to {target} against the batch size: "
        f"{'; '.join(_seen(str(g), points) for g, points in sizes.groupby('group', sort=False))}. "
        f"Critical batch size: {'; '.join(_words(one) for one in found)}.",
        figure=fits(sizes, found, evidence.looks_of(groups)),
    )
    return (drawing,)


def _limits(sizes: pd.Series[float], found: Sequence[Scaling]) -> tuple[float, float]:
    """The range of batch sizes to show: those that were run, and B_crit where it is near."""
    low, high = float(sizes.min()), float(sizes.max())
    near = [f.b_crit for f in found if not f.at_limit and low / _NEAR <= f.b_crit <= high * _NEAR]
    return min([low, *near]) / 1.3, max([high, *near]) * 1.3


def _points(axes: Axes, points: pd.DataFrame, look: Look) -> None:
    """The mean of every size, hollow where it is a lower bound."""
    whole = points["hits"] == points["runs"]
    axes.plot(points["size"][whole], points["updates"][whole], look.marker, color=look.colour)
    rest = points[~whole]
    axes.plot(rest["size"], rest["updates"], look.marker, color=look.colour, markerfacecolor="none")
    arrow = {"arrowstyle": "<-", "color": look.colour, "lw": 1.2, "shrinkA": 0, "shrinkB": 3}
    for place in zip(rest["size"], rest["updates"], strict=True):
        axes.annotate("", place, xytext=(0, 16), textcoords="offset points", arrowprops=arrow)


def _fit(axes: Axes, one: Scaling, look: Look, limits: tuple[float, float]) -> None:
    """The fitted line, a star at its B_crit, and the interval of that."""
    low, high = one.sizes[0], one.sizes[-1]
    is_shown = not one.at_limit and limits[0] <= one.b_crit <= limits[1]
    if is_shown:
        low, high = min(low, one.b_crit), max(high, one.b_crit)
    x = np.geomspace(low, high, 100)
    axes.plot(x, [one.at(size) for size in x], **look.line)
    if is_shown:
        height = one.at(one.b_crit)
        span(axes, (one.low, one.high), height, limits, look.colour)
        axes.plot([one.b_crit], [height], "*", color=look.colour, ms=12, zorder=4)


def _caption(sizes: pd.DataFrame, found: Sequence[Scaling], alpha: float) -> tuple[str, ...]:
    parts = [
        "Point: geometric mean over seeds; line: S(B) = S_min (1 + B_crit / B), fitted to all runs "
        f"with misses as censored; star: B_crit, and its {100 * (1 - alpha):g} % interval over "
        "resampled seeds. Below B_crit a larger batch saves updates in proportion, beyond it few.",
    ]
    if (sizes["hits"] < sizes["runs"]).any():
        parts.append(
            "A hollow point with an arrow holds runs that missed the target: it is a lower bound."
        )
    parts.append(f"B_crit: {'; '.join(_words(one) for one in found)}.")
    if any(one.seeds < _FEW for one in found):
        parts.append("Over so few seeds these intervals are somewhat too narrow.")
    fitted = {one.group for one in found}
    absent = [str(g) for g in sizes["group"].drop_duplicates() if g not in fitted]
    if absent:
        parts.append(
            f"Without a fit, for want of three batch sizes or of hits at two: {listed(absent)}."
        )
    return tuple(parts)


def _words(one: Scaling) -> str:
    """B_crit of a group, with what it rests on, and what it is not."""
    runs = f"{counted(one.points, 'run')}, {counted(one.censored, 'miss', 'misses')}"
    runs = f"{runs}, {counted(one.seeds, 'seed')}"
    ends = (
        f"{number(one.low)} to {number(one.high)}"
        if one.is_bounded
        else f"at least {number(one.low)}, no upper end"
        if one.low > 0
        else f"at most {number(one.high)}, no lower end"
        if math.isfinite(one.high)
        else "no interval"
    )
    if one.at_limit:
        seen = "fall like 1 / B over all sizes" if one.at_limit > 0 else "do not fall with B"
        return f"{one.group} not found, updates {seen} ({ends}; {runs})"
    beyond = "" if one.is_inside else ", outside the sizes that were run"
    return f"{one.group} {number(one.b_crit)} ({ends}; {runs}{beyond})"


def _seen(group: str, points: pd.DataFrame) -> str:
    first, last = points.iloc[0], points.iloc[-1]
    return (
        f"{group} from {number(first['updates'])} at {number(first['size'], tidy=True)} samples "
        f"to {number(last['updates'])} at {number(last['size'], tidy=True)}"
    )

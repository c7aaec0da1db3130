"""Batch scaling: updates to the target against the batch size, with the critical batch size.

A second figure shows seconds: means joined by lines, since the fit is a model of updates, with
B_crit marked on them. Beyond B_crit a larger batch saves few updates; seconds show what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from bdhf.records import Records
from bdhf.report.ablation import captions
from bdhf.report.ablation.tuning import per_batch_size
from bdhf.report.page.drawing import Drawing, Evidence
from bdhf.report.page.formatting import listed
from bdhf.report.page.style import MOST_LINES, Look, canvas, logarithmic, span, styled
from bdhf.stats.scaling.means import between
from bdhf.stats.scaling.scaling import Scaling
from bdhf.text.formatting import counted, number, percent

_FEW = 20  # evaluations up to S_min; below, the count of updates is coarse
_SHORT = 5.0  # the factor within which 1, 2, 5, 10 … may be fewer than two ticks
_NEAR = 4.0  # B_crit is marked up to this factor beyond the sizes


def draw_scaling(evidence: Evidence) -> tuple[Drawing, ...]:
    """Updates and seconds for every target with a fit; () where no group of arms has a fit."""
    targets = list(dict.fromkeys(fit.target for fit in evidence.scaling))
    return tuple(
        drawing
        for index, target in enumerate(targets, start=1)
        for drawing in _drawn(evidence, target, f"_{index}" if len(targets) > 1 else "")
    )


@styled()
def fits(sizes: pd.DataFrame, scalings: Sequence[Scaling], looks: Mapping[str, Look]) -> Figure:
    """Points and fitted lines, both axes logarithmic.

    `sizes`: columns `group, size` (samples), `cost` (updates), `hits, runs`.
    """
    figure, (axes,) = canvas(1, looks)
    low, high = _limits(sizes["size"], scalings)
    for group, points in sizes.groupby("group", sort=False):
        _points(axes, points, looks[str(group)])
    for scaling in scalings:
        _fit(axes, scaling, looks[scaling.group], (low, high))
    _scales(axes, (low, high), "updates to the target\n(log scale)")
    return figure


@styled()
def joined(sizes: pd.DataFrame, scalings: Sequence[Scaling], looks: Mapping[str, Look]) -> Figure:
    """Points joined by lines with a star at B_crit, both axes logarithmic.

    `sizes`: columns `group, size` (samples), `cost` (seconds), `hits, runs`.
    """
    figure, (axes,) = canvas(1, looks)
    limits = _limits(sizes["size"], ())
    fitted = {scaling.group: scaling for scaling in scalings}
    for group, points in sizes.groupby("group", sort=False):
        look = looks[str(group)]
        axes.plot(points["size"], points["cost"], **look.line)
        _points(axes, points, look)
        if str(group) in fitted:
            _critical(axes, fitted[str(group)], points, look, limits)
    _scales(axes, limits, "seconds of training\nto the target (log scale)")
    return figure


def _drawn(evidence: Evidence, target: str, suffix: str) -> tuple[Drawing, ...]:
    sizes = evidence.sizes[evidence.sizes["target"] == target]
    scalings = [scaling for scaling in evidence.scaling if scaling.target == target]
    groups = list(sizes["group"].drop_duplicates())
    if len(groups) > MOST_LINES:
        return ()
    looks = evidence.looks_of(groups)
    updates, seconds = (sizes[sizes["axis"] == axis] for axis in ("updates", "seconds"))
    first = _of_updates(evidence, updates, scalings, looks, suffix)
    if seconds.empty:
        return (first,)
    return first, _of_seconds(evidence, seconds, scalings, looks, suffix)


def _of_updates(
    evidence: Evidence,
    sizes: pd.DataFrame,
    scalings: Sequence[Scaling],
    looks: Mapping[str, Look],
    suffix: str,
) -> Drawing:
    target = scalings[0].target
    return Drawing(
        name=f"scaling{suffix}",
        section="Batch scaling",
        title=f"Updates to {target}",
        caption=(
            *_caption(sizes, scalings, evidence.records),
            per_batch_size(evidence.records, list(looks)),
        ),
        alt=f"Updates to {target} against the batch size: "
        f"{'; '.join(_seen(str(g), points) for g, points in sizes.groupby('group', sort=False))}. "
        f"Critical batch size: {'; '.join(_words(scaling) for scaling in scalings)}.",
        figure=fits(sizes, scalings, looks),
    )


def _of_seconds(
    evidence: Evidence,
    sizes: pd.DataFrame,
    scalings: Sequence[Scaling],
    looks: Mapping[str, Look],
    suffix: str,
) -> Drawing:
    target = scalings[0].target
    groups = sizes.groupby("group", sort=False)
    seen = {str(group) for group, _ in groups}
    return Drawing(
        name=f"scaling_seconds{suffix}",
        section="Batch scaling",
        title=f"Seconds to {target}",
        caption=captions.seconds_of_sizes(evidence.records, sizes, list(looks)),
        alt=f"Seconds to {target} against the batch size: "
        f"{'; '.join(_seen(str(group), points) for group, points in groups)}.",
        figure=joined(sizes, scalings, {group: looks[group] for group in looks if group in seen}),
    )


def _scales(axes: Axes, limits: tuple[float, float], height: str) -> None:
    """Make both axes logarithmic, with ticks even where costs are close to each other."""
    logarithmic(axes, "x", *limits)
    axes.set_yscale("log")
    bottom, top = axes.get_ylim()
    logarithmic(axes, "y", bottom, top)
    if top < _SHORT * bottom:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom, top * (top / bottom) ** 0.07)  # room for arrows
    axes.set(xlim=limits, xlabel="batch size, samples (log scale)", ylabel=height)


def _limits(sizes: pd.Series[float], scalings: Sequence[Scaling]) -> tuple[float, float]:
    """The range of batch sizes to show: those of the arms, and B_crit where it is near."""
    low, high = float(sizes.min()), float(sizes.max())
    near = [
        f.b_crit for f in scalings if not f.at_limit and low / _NEAR <= f.b_crit <= high * _NEAR
    ]
    return min([low, *near]) / 1.3, max([high, *near]) * 1.3


def _points(axes: Axes, points: pd.DataFrame, look: Look) -> None:
    """The mean of every size, hollow where it is a lower bound, and large enough to see that."""
    whole = points["hits"] == points["runs"]
    axes.plot(points["size"][whole], points["cost"][whole], look.marker, color=look.colour)
    rest = points[~whole]
    (hollow,) = axes.plot(rest["size"], rest["cost"], look.marker, color=look.colour)
    hollow.set(markerfacecolor="none", markersize=7)
    arrow = {"arrowstyle": "<-", "color": look.colour, "lw": 1.2, "shrinkA": 0, "shrinkB": 4}
    for point in zip(rest["size"], rest["cost"], strict=True):
        axes.annotate("", point, xytext=(0, 16), textcoords="offset points", arrowprops=arrow)


def _fit(axes: Axes, scaling: Scaling, look: Look, limits: tuple[float, float]) -> None:
    """Draw the fitted line, and a star at B_crit with its interval."""
    low, high = scaling.sizes[0], scaling.sizes[-1]
    is_shown = not scaling.at_limit and limits[0] <= scaling.b_crit <= limits[1]
    if is_shown:
        low, high = min(low, scaling.b_crit), max(high, scaling.b_crit)
    x = np.geomspace(low, high, 100)
    axes.plot(x, [scaling.at(size) for size in x], **look.line)
    if is_shown:
        _star(axes, scaling, scaling.at(scaling.b_crit), look, limits)


def _critical(
    axes: Axes, scaling: Scaling, points: pd.DataFrame, look: Look, limits: tuple[float, float]
) -> None:
    """Mark the B_crit of updates on a line of seconds, if it lies within its sizes."""
    height = between(points, scaling.b_crit)
    if not scaling.at_limit and math.isfinite(height):
        _star(axes, scaling, height, look, limits)


def _star(
    axes: Axes, scaling: Scaling, height: float, look: Look, limits: tuple[float, float]
) -> None:
    """Draw a star at B_crit and its interval, with ticks at its ends."""
    span(axes, (scaling.low, scaling.high), height, limits, look.colour)
    ends = [end for end in (scaling.low, scaling.high) if limits[0] <= end <= limits[1]]
    axes.plot(ends, [height] * len(ends), "|", color=look.colour, ms=9, mew=1.5)
    axes.plot([scaling.b_crit], [height], "*", color=look.colour, ms=12, zorder=4)


def _caption(sizes: pd.DataFrame, scalings: Sequence[Scaling], records: Records) -> tuple[str, ...]:
    parts = [
        "Point: geometric mean over seeds; line: S(B) = S_min (1 + B_crit / B), fitted to all runs "
        f"with misses as censored; star: B_crit with its {percent(1 - records.alpha)} interval "
        "from the spread between seeds. Below B_crit a larger batch saves updates in proportion; "
        "beyond B_crit it saves few.",
    ]
    if (sizes["hits"] < sizes["runs"]).any():
        parts.append(captions.HOLLOW)
    parts.append(f"B_crit: {'; '.join(_words(scaling) for scaling in scalings)}.")
    if any(scaling.s_min < _FEW * records.evaluate_every for scaling in scalings):
        parts.append(
            "Updates are counted at evaluations. With so few updates this shifts B_crit, and the "
            "interval covers it less often than its level."
        )
    fitted = {scaling.group for scaling in scalings}
    absent = [str(g) for g in sizes["group"].drop_duplicates() if g not in fitted]
    if absent:
        parts.append(f"No fit for lack of three batch sizes or of hits at two: {listed(absent)}.")
    return tuple(parts)


def _words(scaling: Scaling) -> str:
    """B_crit of a group with its interval and its numbers of runs, or why there is none."""
    runs = f"{counted(scaling.points, 'run')}, {counted(scaling.censored, 'miss', 'misses')}"
    runs = f"{runs}, {counted(scaling.seeds, 'seed')}"
    ends = (
        f"{number(scaling.low)} to {number(scaling.high)}"
        if scaling.is_bounded
        else f"at least {number(scaling.low)}, no upper bound"
        if scaling.low > 0
        else f"at most {number(scaling.high)}, no lower bound"
        if math.isfinite(scaling.high)
        else "no interval"
    )
    if scaling.at_limit:
        seen = "fall like 1 / B over all sizes" if scaling.at_limit > 0 else "do not fall with B"
        return f"{scaling.group} not found, updates {seen} ({ends}; {runs})"
    beyond = "" if scaling.is_inside else ", outside the sizes"
    return f"{scaling.group} {number(scaling.b_crit)} ({ends}; {runs}{beyond})"


def _seen(group: str, points: pd.DataFrame) -> str:
    first, last = points.iloc[0], points.iloc[-1]
    return (
        f"{group} from {number(first['cost'])} at {number(first['size'], tidy=True)} samples "
        f"to {number(last['cost'])} at {number(last['size'], tidy=True)}"
    )

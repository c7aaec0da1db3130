"""Batch scaling: updates to the target against the batch size, with the critical batch size.

Seconds stand beside: means joined by lines, since the fit is a model of updates, with B_crit on
them. Beyond it a larger batch saves hardly any updates; what it costs is the other figure.
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

_FEW = 20  # evaluations up to S_min, below which whole updates are coarse
_SHORT = 5.0  # the factor within which 1, 2, 5, 10 … may be fewer than two ticks
_NEAR = 4.0  # B_crit is marked up to this factor beyond the sizes that were run


def draw_scaling(evidence: Evidence) -> tuple[Drawing, ...]:
    """Updates and seconds, of every target with a fit; none where no group of arms has one."""
    targets = list(dict.fromkeys(found.target for found in evidence.scaling))
    return tuple(
        drawing
        for place, target in enumerate(targets, start=1)
        for drawing in _drawn(evidence, target, f"_{place}" if len(targets) > 1 else "")
    )


@styled()
def fits(sizes: pd.DataFrame, found: Sequence[Scaling], looks: Mapping[str, Look]) -> Figure:
    """Points and fitted lines, both axes logarithmic.

    `sizes`: columns `group, size` (samples), `cost` (updates), `hits, runs`.
    """
    figure, (axes,) = canvas(1, looks)
    low, high = _limits(sizes["size"], found)
    for group, points in sizes.groupby("group", sort=False):
        _points(axes, points, looks[str(group)])
    for one in found:
        _fit(axes, one, looks[one.group], (low, high))
    _scales(axes, (low, high), "updates to the target\n(log scale)")
    return figure


@styled()
def joined(sizes: pd.DataFrame, found: Sequence[Scaling], looks: Mapping[str, Look]) -> Figure:
    """Points joined by lines, on each a star at its B_crit, both axes logarithmic.

    `sizes`: columns `group, size` (samples), `cost` (seconds), `hits, runs`.
    """
    figure, (axes,) = canvas(1, looks)
    limits = _limits(sizes["size"], ())
    fitted = {one.group: one for one in found}
    for group, points in sizes.groupby("group", sort=False):
        look = looks[str(group)]
        axes.plot(points["size"], points["cost"], **look.line)
        _points(axes, points, look)
        if str(group) in fitted:
            _critical(axes, fitted[str(group)], points, look, limits)
    _scales(axes, limits, "seconds of training\nto the target (log scale)")
    return figure


def _drawn(evidence: Evidence, target: str, suffix: str) -> tuple[Drawing, ...]:
    mine = evidence.sizes[evidence.sizes["target"] == target]
    found = [one for one in evidence.scaling if one.target == target]
    groups = list(mine["group"].drop_duplicates())
    if len(groups) > MOST_LINES:
        return ()
    looks = evidence.looks_of(groups)
    updates, seconds = (mine[mine["axis"] == axis] for axis in ("updates", "seconds"))
    first = _of_updates(evidence, updates, found, looks, suffix)
    if seconds.empty:
        return (first,)
    return first, _of_seconds(evidence, seconds, found, looks, suffix)


def _of_updates(
    evidence: Evidence,
    sizes: pd.DataFrame,
    found: Sequence[Scaling],
    looks: Mapping[str, Look],
    suffix: str,
) -> Drawing:
    target = found[0].target
    return Drawing(
        name=f"scaling{suffix}",
        section="Batch scaling",
        title=f"Updates to {target}",
        caption=(
            *_caption(sizes, found, evidence.records),
            per_batch_size(evidence.records, list(looks)),
        ),
        alt=f"Updates to {target} against the batch size: "
        f"{'; '.join(_seen(str(g), points) for g, points in sizes.groupby('group', sort=False))}. "
        f"Critical batch size: {'; '.join(_words(one) for one in found)}.",
        figure=fits(sizes, found, looks),
    )


def _of_seconds(
    evidence: Evidence,
    sizes: pd.DataFrame,
    found: Sequence[Scaling],
    looks: Mapping[str, Look],
    suffix: str,
) -> Drawing:
    target = found[0].target
    groups = sizes.groupby("group", sort=False)
    seen = {str(group) for group, _ in groups}
    return Drawing(
        name=f"scaling_seconds{suffix}",
        section="Batch scaling",
        title=f"Seconds to {target}",
        caption=captions.seconds_of_sizes(evidence.records, sizes, list(looks)),
        alt=f"Seconds to {target} against the batch size: "
        f"{'; '.join(_seen(str(group), points) for group, points in groups)}.",
        figure=joined(sizes, found, {group: looks[group] for group in looks if group in seen}),
    )


def _scales(axes: Axes, limits: tuple[float, float], height: str) -> None:
    """Both axes logarithmic; where costs are near each other they have ticks all the same."""
    logarithmic(axes, "x", *limits)
    axes.set_yscale("log")
    bottom, top = axes.get_ylim()
    logarithmic(axes, "y", bottom, top)
    if top < _SHORT * bottom:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom, top * (top / bottom) ** 0.07)  # room for arrows
    axes.set(xlim=limits, xlabel="batch size, samples (log scale)", ylabel=height)


def _limits(sizes: pd.Series[float], found: Sequence[Scaling]) -> tuple[float, float]:
    """The range of batch sizes to show: those that were run, and B_crit where it is near."""
    low, high = float(sizes.min()), float(sizes.max())
    near = [f.b_crit for f in found if not f.at_limit and low / _NEAR <= f.b_crit <= high * _NEAR]
    return min([low, *near]) / 1.3, max([high, *near]) * 1.3


def _points(axes: Axes, points: pd.DataFrame, look: Look) -> None:
    """The mean of every size, hollow where it is a lower bound, and large enough to see that."""
    whole = points["hits"] == points["runs"]
    axes.plot(points["size"][whole], points["cost"][whole], look.marker, color=look.colour)
    rest = points[~whole]
    (hollow,) = axes.plot(rest["size"], rest["cost"], look.marker, color=look.colour)
    hollow.set(markerfacecolor="none", markersize=7)
    arrow = {"arrowstyle": "<-", "color": look.colour, "lw": 1.2, "shrinkA": 0, "shrinkB": 4}
    for place in zip(rest["size"], rest["cost"], strict=True):
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
        _star(axes, one, one.at(one.b_crit), look, limits)


def _critical(
    axes: Axes, one: Scaling, points: pd.DataFrame, look: Look, limits: tuple[float, float]
) -> None:
    """The B_crit of the updates on a line of seconds, if it lies among its sizes."""
    height = between(points, one.b_crit)
    if not one.at_limit and math.isfinite(height):
        _star(axes, one, height, look, limits)


def _star(axes: Axes, one: Scaling, height: float, look: Look, limits: tuple[float, float]) -> None:
    """A star at a B_crit, with its interval, whose ends are seen on a level line too."""
    span(axes, (one.low, one.high), height, limits, look.colour)
    ends = [end for end in (one.low, one.high) if limits[0] <= end <= limits[1]]
    axes.plot(ends, [height] * len(ends), "|", color=look.colour, ms=9, mew=1.5)
    axes.plot([one.b_crit], [height], "*", color=look.colour, ms=12, zorder=4)


def _caption(sizes: pd.DataFrame, scalings: Sequence[Scaling], records: Records) -> tuple[str, ...]:
    parts = [
        "Point: geometric mean over seeds; line: S(B) = S_min (1 + B_crit / B), fitted to all runs "
        f"with misses as censored; star: B_crit, and its {percent(1 - records.alpha)} "
        "interval, from the spread between seeds. Below B_crit a larger batch saves updates in "
        "proportion, beyond it few.",
    ]
    if (sizes["hits"] < sizes["runs"]).any():
        parts.append(captions.HOLLOW)
    parts.append(f"B_crit: {'; '.join(_words(scaling) for scaling in scalings)}.")
    if any(scaling.s_min < _FEW * records.evaluate_every for scaling in scalings):
        parts.append(
            "Updates are counted up to an evaluation: where they are so few, that shifts B_crit, "
            "and the interval does not hold it as often as it says."
        )
    fitted = {scaling.group for scaling in scalings}
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
        f"{group} from {number(first['cost'])} at {number(first['size'], tidy=True)} samples "
        f"to {number(last['cost'])} at {number(last['size'], tidy=True)}"
    )

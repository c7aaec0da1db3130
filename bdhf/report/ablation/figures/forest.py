"""Forest plot: the ratio of every comparison with its interval, its margin and its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bdhf.report.page.drawing import Drawing, Evidence
from bdhf.report.page.formatting import listed
from bdhf.report.page.style import INK, Look, listing, literal, ratios, span, styled
from bdhf.stats.result import Result, Verdict
from bdhf.text.formatting import counted, interval, number, percent

#: How a verdict is drawn: colour, line style and marker (down: the candidate pays less).
VERDICTS: Mapping[Verdict, Look] = {
    Verdict.BETTER: Look("#0173b2", "-", "v"),
    Verdict.WORSE: Look("#d55e00", "-", "^"),
    Verdict.EQUIVALENT: Look("#029e73", "-", "s"),
    Verdict.UNDECIDED: Look(INK, "-", "o"),
}
_REACH = 20.0  # an interval that exceeds all ratios by more than this factor has an arrow


def draw_forest(evidence: Evidence) -> tuple[Drawing, ...]:
    """One figure per question (costs on an axis to a target, or a loss); () without a ratio."""
    groups: dict[str, list[Result]] = {}
    for result in evidence.results:
        groups.setdefault(result.question, []).append(result)
    drawn = [group for group in groups.values() if any(_has_ratio(result) for result in group)]
    return tuple(
        _drawn(group, f"_{index}" if len(drawn) > 1 else "")
        for index, group in enumerate(drawn, start=1)
    )


@styled()
def effects(results: Sequence[Result]) -> Figure:
    """A row per result, the first on top; each has a ratio."""
    seen = [verdict for verdict in VERDICTS if any(r.verdict is verdict for r in results)]
    figure, axes = listing(len(results))
    handles = [_handle(VERDICTS[verdict]) for verdict in seen]
    figure.legend(
        handles,
        [str(verdict) for verdict in seen],
        loc="outside upper left",
        ncols=len(seen),
        handlelength=2,
        columnspacing=1.2,
    )
    low, high = _limits(results)
    ratios(axes, low, high)
    for row, result in enumerate(results):
        _row(axes, row, result, (low, high))
    rows = np.arange(len(results))
    axes.vlines(
        np.ones(len(rows)), rows - 0.26, rows + 0.3, color=INK, lw=0.9
    )  # not through the names
    unit = "costs" if results[0].is_to_target else "losses"
    axes.set_xlabel(f"ratio of {unit}, candidate ÷ baseline (log scale)\n← candidate is better")
    return figure


def _drawn(results: Sequence[Result], suffix: str) -> Drawing:
    shown = [result for result in results if _has_ratio(result)]
    return Drawing(
        name=f"forest{suffix}",
        section="Effects",
        title=results[0].question[:1].upper() + results[0].question[1:],
        caption=_caption(results),
        alt=f"Ratio of {results[0].question}, with its interval: "
        f"{'; '.join(_words(result) for result in shown)}.",
        figure=effects(shown),
    )


def _has_ratio(result: Result) -> bool:
    return math.isfinite(result.ratio) and result.ratio > 0


def _limits(results: Sequence[Result]) -> tuple[float, float]:
    """The range to show: 1, all ratios, and the ends of intervals and margins that are near."""
    seen = [1.0, *(result.ratio for result in results)]
    least, most = min(seen) / _REACH, max(seen) * _REACH
    ends = [end for r in results for end in (r.ratio_low, r.ratio_high, r.margin, 1 / r.margin)]
    near = [end for end in ends if math.isfinite(end) and least <= end <= most]
    low, high = min(seen + near), max(seen + near)
    room = max(high / low, 1.5) ** 0.06
    return low / room, high * room


def _row(axes: Axes, row: int, result: Result, limits: tuple[float, float]) -> None:
    """One result: margin, interval and ratio, below its name and its ratio as text."""
    look = VERDICTS[result.verdict]
    if not math.isnan(result.margin):
        inner = np.clip([1 / result.margin, result.margin], *limits)
        axes.fill_between(inner, row - 0.24, row + 0.24, color=INK, alpha=0.13, lw=0)
    ends = (result.ratio_low, result.ratio_high)
    if not any(map(math.isnan, ends)):
        span(axes, ends, row, limits, look.colour)
    axes.plot([result.ratio], [row], look.marker, color=look.colour, ms=7.5, zorder=3)
    _above(axes, row, 0, literal(result.name, limit=52))
    _above(axes, row, 1, number(result.ratio, mark=1.0))


def _above(axes: Axes, row: int, side: int, text: str) -> None:
    """Write above a row, at the left (0) or right (1) end of the panel."""
    position, align = (side, row - 0.42), ("left", "right")[side]
    axes.annotate(
        text, position, xycoords=("axes fraction", "data"), ha=align, va="center", fontsize=9
    )


def _handle(look: Look) -> Line2D:
    return Line2D([], [], marker=look.marker, ms=7.5, **look.line)


def _words(result: Result) -> str:
    ends = interval(result.ratio_low, result.ratio_high, mark=1.0)
    return (
        f"{result.name}, {result.candidate} {number(result.ratio, mark=1.0)} times "
        f"{result.baseline} ({ends}), {result.verdict}"
    )


def _caption(results: Sequence[Result]) -> tuple[str, ...]:
    shown = [result for result in results if _has_ratio(result)]
    level = percent(1 - shown[0].alpha)
    parts = [
        f"Marker: geometric mean over seeds of candidate ÷ baseline; line: its {level} interval. "
        "Verdicts are corrected for the number of comparisons, intervals are not: an interval can "
        "exclude 1 where the verdict is undecided.",
    ]
    if not all(math.isnan(result.margin) for result in shown):
        parts.append("Shaded: the equivalence margin.")
    if any(math.isinf(r.ratio_high) or r.ratio_low == 0 for r in shown):
        parts.append(
            "Arrow: the interval extends beyond the panel; with too few pairs it is unbounded."
        )
    short = [f"{r.name} {r.pairs} of {r.planned}" for r in shown if r.pairs < r.planned]
    if short:
        parts.append(f"Not all pairs have an outcome: {listed(short)}.")
    absent = [result.name for result in results if not _has_ratio(result)]
    if absent:
        left_out = counted(len(absent), "comparison")
        parts.append(f"Left out for lack of a ratio: {left_out} ({listed(absent)}).")
    return tuple(parts)

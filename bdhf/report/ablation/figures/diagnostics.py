"""CG iterations, damping, reduction ratio, and why solvers stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bdhf.records import Records
from bdhf.report.ablation.captions import course
from bdhf.report.ablation.diagnostic_bands import diagnostic_bands
from bdhf.report.page.drawing import Drawing, Evidence
from bdhf.report.page.formatting import listed
from bdhf.report.page.style import DECADE, INK, Look, canvas, linear, logarithmic, styled
from bdhf.stats.observations.targets import OUTCOMES
from bdhf.text.formatting import counted, number

#: Column of a curve -> the label of its panel.
UPDATES: Mapping[str, str] = {
    "cg_iterations": "CG iterations",
    "damping": "damping λ",
    "reduction_ratio": "reduction ratio",
}
#: Shares of blocks whose solver stopped for a reason.
STOP_METRICS: Mapping[str, str] = {
    "stop_converged": "share of blocks that\nconverged",
    "stop_progress": "share of blocks that\nstopped progressing",
    "stop_max_iters": "share of blocks at\nthe iteration limit",
    "negative_curvature": "share of blocks with\nnegative curvature",
}
_RATIOS = (-1.0, 3.0)  # reduction ratios beyond these are outside the panel
_COUNTS = ("cg_iterations",)


def draw_diagnostics(evidence: Evidence) -> tuple[Drawing, ...]:
    """The updates, and why their solvers stopped; () where no run measured either."""
    records = evidence.records
    stops = diagnostic_bands(records, list(STOP_METRICS))
    some = [str(name) for name, line in stops.groupby("metric") if (line["high"] > 0).any()]
    none = [name for name in stops["metric"].unique() if name not in some]
    updates = diagnostic_bands(records, list(UPDATES))
    drawings = (
        _drawn(evidence, updates, UPDATES, "diagnostics", "Updates", ()),
        _drawn(
            evidence, stops[stops["metric"].isin(some)], STOP_METRICS, "diagnostics_stops",
            "Why solvers stopped", [STOP_METRICS[name].split("\n")[1] for name in none],
        ),
    )  # fmt: skip
    return tuple(drawing for drawing in drawings if drawing is not None)


@styled()
def panels(table: pd.DataFrame, looks: Mapping[str, Look], names: Mapping[str, str]) -> Figure:
    """One panel per metric of `table`, whose columns `diagnostic_bands` documents."""
    metrics = list(table["metric"].drop_duplicates())
    seen = set(table["arm"])
    figure, stack = canvas(len(metrics), {arm: looks[arm] for arm in looks if arm in seen})
    for axes, metric in zip(stack, metrics, strict=True):
        panel = table[table["metric"] == metric]
        for arm, line in panel.groupby("arm", sort=False):
            _line(axes, line, looks[str(arm)])
        axes.set_ylabel(names[metric])
        _scale(axes, panel, metric)
    linear(stack[-1], table["x"])
    stack[-1].set_xlabel("updates")
    return figure


def _drawn(
    evidence: Evidence,
    table: pd.DataFrame,
    names: Mapping[str, str],
    name: str,
    title: str,
    never: Sequence[str],
) -> Drawing | None:
    if table.empty:
        return None
    parts = []
    for metric, panel in table.groupby("metric", sort=False):
        lines = [
            course(str(arm), line, "updates") for arm, line in panel.groupby("arm", sort=False)
        ]
        parts.append(f"Median {names[str(metric)]} against updates: {'; '.join(lines)}.")
    return Drawing(
        name=name,
        section="Inside the optimizer",
        title=title,
        caption=_caption(evidence.records, table, never),
        alt=" ".join(parts).replace("\n", " "),
        figure=panels(table, evidence.looks, names),
    )


def _line(axes: Axes, line: pd.DataFrame, look: Look) -> None:
    """One arm: its median and its band, with a marker where it ends."""
    if line["runs"].iloc[0] > 1:
        axes.fill_between(line["x"], line["low"], line["high"], color=look.colour, alpha=0.16, lw=0)
    axes.plot(line["x"], line["median"], **look.line)
    end = line.iloc[-1]
    axes.plot([end["x"]], [end["median"]], look.marker, color=look.colour, clip_on=False)


def _scale(axes: Axes, panel: pd.DataFrame, metric: str) -> None:
    """Set limits that suit a share, a count, a ratio or a damping."""
    low, high = float(panel["low"].min()), float(panel["high"].max())
    if metric in STOP_METRICS:
        axes.set(ylim=(-0.03, 1.03), yticks=[0, 0.25, 0.5, 0.75, 1])
    elif metric == "reduction_ratio":
        axes.axhline(1.0, color=INK, lw=0.9, linestyle=(0, (1, 2)))
        axes.set_ylim(max(min(low, 0.0), _RATIOS[0]) - 0.1, min(max(high, 1.0), _RATIOS[1]) + 0.1)
    elif metric not in _COUNTS and 0 < DECADE * low < high:
        logarithmic(axes, "y", low, high)
    else:
        axes.set_ylim(0, 1.05 * high or 1.0)


def _caption(records: Records, table: pd.DataFrame, never: Sequence[str]) -> tuple[str, ...]:
    parts = [
        "Line: median over the seeds that still train, measured at the last update before an "
        "evaluation; band: interquartile range. A line ends where fewer than half of the seeds "
        "remain.",
    ]
    ratio = table[table["metric"] == "reduction_ratio"]
    if len(ratio):
        parts.append(
            "At a reduction ratio of 1 (dotted) the quadratic model predicts the decrease exactly."
        )
    if (ratio["low"] < _RATIOS[0]).any() or (ratio["high"] > _RATIOS[1]).any():
        parts.append(
            f"Ratios below {number(_RATIOS[0], tidy=True)} or above "
            f"{number(_RATIOS[1], tidy=True)} are outside the panel."
        )
    if never:
        parts.append(f"No panel, because the upper quartile is always 0: {listed(list(never))}.")
    return (*parts, *_left_out(records, table))


def _left_out(records: Records, table: pd.DataFrame) -> list[str]:
    """Which arms have no measurements, and how many runs have no outcome."""
    seen = set(table["arm"])
    absent = [arm for arm in records.arms if arm not in seen]
    parts = [f"No measurements for {listed(absent)}."] if absent else []
    runs = records.runs[records.runs["arm"].isin(seen)]
    drawn = int(runs["status"].isin(OUTCOMES).sum())
    if drawn < len(runs):
        parts.append(f"Drawn from {drawn} of {counted(len(runs), 'run')}.")
    return parts

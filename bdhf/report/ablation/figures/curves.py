"""Training curves: median and interquartile band over seeds, on every axis and scale of choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bdhf.records import AXES, Records, Target
from bdhf.report.ablation import captions
from bdhf.report.ablation.curve_bands import AT_TARGET, DIVERGED, bands
from bdhf.report.page.drawing import SCALES, Drawing, Evidence, View
from bdhf.report.page.formatting import metric_name
from bdhf.report.page.style import DECADE, INK, Look, canvas, linear, logarithmic, styled
from bdhf.text.formatting import number

#: A loss that rises above this multiple of the largest first loss leaves the panel.
_HEADROOM = 3.0

_LOSSES = ["low", "median", "high"]


def draw_curves(evidence: Evidence) -> tuple[Drawing, ...]:
    """Losses against every recorded axis, on every scale; the most suitable scale comes first.

    () where no run has an outcome.
    """
    return tuple(drawing for axis in AXES for drawing in _views(evidence, axis))


@styled()
def draw_lines(
    table: pd.DataFrame,
    looks: Mapping[str, Look],
    targets: Sequence[Target],
    xlabel: str,
    scale: str,
) -> Figure:
    """One panel per metric of `table`, whose columns `curve_bands.bands` documents.

    `scale` is a key of SCALES.
    """
    metrics = list(table["metric"].drop_duplicates())
    seen = set(table["arm"])
    figure, panels = canvas(len(metrics), {arm: looks[arm] for arm in looks if arm in seen})
    for axes, metric in zip(panels, metrics, strict=True):
        panel = table[table["metric"] == metric]
        axes.set_ylabel(metric_name(metric))
        panel_targets = [target for target in targets if target.metric == metric]
        _scale(axes, panel, panel_targets, scale)
        for arm, line in panel.groupby("arm", sort=False):
            _line(axes, line, looks[str(arm)])
        for target in panel_targets:
            _target(axes, target)
    logged = " (log scale)" if panels[-1].get_xscale() == "log" else ""
    panels[-1].set_xlabel(xlabel + logged)
    return figure


def suited(table: pd.DataFrame, targets: Sequence[Target]) -> str:
    """The scale for a table of bands: logarithmic where a linear axis would hide a line."""
    ends = table.groupby("arm")["x"].max()
    if ends.max() > DECADE * ends.min():
        return "log"
    drawn = [
        _range(panel, [target for target in targets if target.metric == metric])
        for metric, panel in table.groupby("metric", sort=False)
    ]
    return "log_loss" if any(high > DECADE * low > 0 for low, high in drawn) else "linear"


def _views(evidence: Evidence, axis: str) -> tuple[Drawing, ...]:
    """One axis on every scale; () where no arm has spent anything on it."""
    records, unit = evidence.records, AXES[axis][1]
    table = bands(records, axis, _metrics(records))
    left = table.groupby("arm")["x"].max() > 0 if len(table) else pd.Series(dtype=bool)
    idle = [str(arm) for arm in left.index[~left]]
    table = table[table["arm"].isin(left.index[left])]
    if table.empty:
        return ()
    best = suited(table, records.targets)
    return tuple(
        Drawing(
            name=f"curves_{axis}_{scale}",
            section="Training curves",
            title=f"Against {unit}",
            caption=captions.curves_caption(records, table, axis, idle),
            alt=captions.curves_alt(table, unit),
            figure=draw_lines(table, evidence.looks, records.targets, unit, scale),
            view=View(axis, scale, scale == best),
        )
        for scale in sorted(SCALES, key=lambda scale: scale != best)
    )


def _metrics(records: Records) -> list[str]:
    """Validation loss first, then the metrics of targets, then training loss."""
    wanted = dict.fromkeys(["val_loss", *(t.metric for t in records.targets), "train_loss"])
    return [m for m in wanted if m in records.curves and records.curves[m].notna().any()]


def _scale(axes: Axes, panel: pd.DataFrame, targets: Sequence[Target], scale: str) -> None:
    """Set the limits and the scale of both axes; only positive values allow a logarithmic axis."""
    beyond = panel.loc[panel["x"] > 0, "x"]
    if scale == "log":
        logarithmic(axes, "x", beyond.min(), beyond.max())
    else:
        linear(axes, panel["x"])
    low, high = _range(panel, targets)
    if scale != "linear" and low > 0:
        logarithmic(axes, "y", low, high)
        room = max(high / low, 1.1) ** 0.05
        axes.set_ylim(low / room, high * room)
    else:
        margin = 0.05 * (high - low) or 0.5 * abs(high) or 1
        axes.set_ylim(low - margin, high + margin)


def _range(panel: pd.DataFrame, targets: Sequence[Target]) -> tuple[float, float]:
    """The smallest and the largest value to show, targets among them.

    A metric that rises towards its target is shown whole.
    """
    drawn = panel[_LOSSES].to_numpy(float).ravel()
    drawn = np.append(drawn[np.isfinite(drawn)], [target.value for target in targets])
    top = _HEADROOM * float(panel.groupby("arm")["median"].first().max())
    caps = top > 0 and not any(target.is_upward for target in targets)
    return float(drawn.min()), float(min(drawn.max(), top) if caps else drawn.max())


def _line(axes: Axes, line: pd.DataFrame, look: Look) -> None:
    """One arm: its median, its band, and a mark where half of its runs have stopped."""
    if axes.get_xscale() == "log":
        line = line[line["x"] > 0]
    if line.empty:
        return
    if line["runs"].iloc[0] > 1:
        low, high = (line[e].where(np.isfinite(line[e]), line["median"]) for e in ("low", "high"))
        axes.fill_between(line["x"], low, high, color=look.colour, alpha=0.16, lw=0)
    axes.plot(line["x"], line["median"], **look.line)
    end = line.iloc[-1]
    mark = {AT_TARGET: look.marker, DIVERGED: "x"}.get(end["end"])
    if mark is not None:
        axes.plot([end["x"]], [end["median"]], mark, color=look.colour, ms=7, clip_on=False)


def _target(axes: Axes, target: Target) -> None:
    """A dotted line with a label in the margin, where it covers no curve."""
    axes.axhline(target.value, color=INK, lw=0.9, linestyle=(0, (1, 2)))
    axes.annotate(
        f"target\n{number(target.value, tidy=True)}",
        (1, target.value),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        annotation_clip=False,
    )

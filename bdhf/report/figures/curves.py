"""Training curves: median and interquartile band over seeds, against updates and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bdhf.records import AXES, Records, Target
from bdhf.report import captions
from bdhf.report.bands import AT_TARGET, DIVERGED, bands
from bdhf.report.drawing import Drawing, Evidence
from bdhf.report.style import DECADE, INK, Look, canvas, linear, logarithmic, styled
from bdhf.report.wording import metric_name, number

#: A loss that rises above this multiple of the largest first loss leaves the panel.
HEADROOM = 3.0


def curves_updates(evidence: Evidence) -> tuple[Drawing, ...]:
    """Losses against the number of updates; nothing where no run has an outcome."""
    return _drawn(evidence, "updates")


def curves_seconds(evidence: Evidence) -> tuple[Drawing, ...]:
    """Losses against seconds of training; nothing where no run has an outcome."""
    return _drawn(evidence, "seconds")


@styled()
def curves(
    table: pd.DataFrame, looks: Mapping[str, Look], targets: Sequence[Target], xlabel: str
) -> Figure:
    """One panel per metric of `table`, whose columns `bands.bands` documents."""
    metrics = list(table["metric"].drop_duplicates())
    seen = set(table["arm"])
    figure, panels = canvas(len(metrics), {arm: looks[arm] for arm in looks if arm in seen})
    for axes, metric in zip(panels, metrics, strict=True):
        panel = table[table["metric"] == metric]
        axes.set_ylabel(metric_name(metric))
        mine = [target for target in targets if target.metric == metric]
        _scale(axes, panel, mine)
        for arm, line in panel.groupby("arm", sort=False):
            _line(axes, line, looks[str(arm)])
        for target in mine:
            _target(axes, target)
    scale = " (log scale)" if panels[-1].get_xscale() == "log" else ""
    panels[-1].set_xlabel(xlabel + scale)
    return figure


def _drawn(evidence: Evidence, axis: str) -> tuple[Drawing, ...]:
    records = evidence.records
    table = bands(records, axis, _metrics(records))
    if table.empty:
        return ()
    unit = AXES[axis][1]
    return (
        Drawing(
            name=f"curves_{axis}",
            section="Training curves",
            title=f"Against {unit}",
            caption=captions.curves(records, table, axis),
            alt=captions.curves_alt(table, unit),
            figure=curves(table, evidence.looks, records.targets, unit),
        ),
    )


def _metrics(records: Records) -> list[str]:
    """Validation loss first, then what the targets read, then training loss."""
    wanted = dict.fromkeys(["val_loss", *(t.metric for t in records.targets), "train_loss"])
    return [m for m in wanted if m in records.curves and records.curves[m].notna().any()]


def _scale(axes: Axes, panel: pd.DataFrame, targets: Sequence[Target]) -> None:
    """Choose the limits, and logarithmic axes where a linear one would hide a line."""
    last = panel.groupby("arm")["x"].max()
    if last.min() > 0 and last.max() > DECADE * last.min():
        logarithmic(axes, "x", panel.loc[panel["x"] > 0, "x"].min(), last.max())
    else:
        linear(axes, panel["x"])
    drawn = panel[["low", "median", "high"]].to_numpy(float).ravel()
    drawn = np.append(drawn[np.isfinite(drawn)], [target.below for target in targets])
    top = HEADROOM * float(panel.groupby("arm")["median"].first().max())
    low, high = float(drawn.min()), float(min(drawn.max(), top) if top > 0 else drawn.max())
    if low > 0 and high > DECADE * low:
        logarithmic(axes, "y", low, high)
        axes.set_ylim(low / (high / low) ** 0.05, high * (high / low) ** 0.05)
    else:
        margin = 0.05 * (high - low) or 0.5 * abs(high) or 1
        axes.set_ylim(low - margin, high + margin)


def _line(axes: Axes, line: pd.DataFrame, look: Look) -> None:
    """One arm: its median, its band, and a mark where half of its runs are through."""
    if axes.get_xscale() == "log":
        line = line[line["x"] > 0]
    if line["runs"].iloc[0] > 1:
        high = line["high"].where(np.isfinite(line["high"]), line["median"])
        axes.fill_between(line["x"], line["low"], high, color=look.colour, alpha=0.16, lw=0)
    axes.plot(line["x"], line["median"], **look.line)
    end = line.iloc[-1]
    mark = {AT_TARGET: look.marker, DIVERGED: "x"}.get(end["end"])
    if mark is not None:
        axes.plot([end["x"]], [end["median"]], mark, color=look.colour, ms=7, clip_on=False)


def _target(axes: Axes, target: Target) -> None:
    """A dotted line, named in the margin where it covers no curve."""
    axes.axhline(target.below, color=INK, lw=0.9, linestyle=(0, (1, 2)))
    axes.annotate(
        f"target\n{number(target.below, tidy=True)}",
        (1, target.below),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        annotation_clip=False,
    )

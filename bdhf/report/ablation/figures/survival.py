"""Survival curves: the fraction of the runs of an arm that have not yet reached a target."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from bdhf.records import AXES
from bdhf.report.ablation import captions
from bdhf.report.page.drawing import Drawing, Evidence
from bdhf.report.page.style import DECADE, INK, Look, canvas, linear, logarithmic, styled


def draw_survival(evidence: Evidence) -> tuple[Drawing, ...]:
    """One figure per target and axis of `evidence.survival`; () where that table is empty."""
    if evidence.survival.empty:
        return ()
    groups = evidence.survival.groupby(["target", "axis"], sort=False)
    return tuple(
        _drawn(evidence, table, str(target), str(axis)) for (target, axis), table in groups
    )


@styled()
def steps(table: pd.DataFrame, looks: Mapping[str, Look], xlabel: str) -> Figure:
    """Step curves from 1 at time 0.

    `table`: columns `arm`, `time` (in units of the axis) and `surviving` (a fraction).
    """
    seen = set(table["arm"])
    figure, (axes,) = canvas(1, {arm: looks[arm] for arm in looks if arm in seen})
    times = table.loc[table["time"] > 0, "time"]
    last = table.groupby("arm")["time"].max()
    for arm, line in table.groupby("arm", sort=False):
        look = looks[str(arm)]
        axes.step(line["time"], line["surviving"], where="post", **look.line)
        jumps = line[line["surviving"].diff() < 0]
        axes.plot(jumps["time"], jumps["surviving"], look.marker, color=look.colour, clip_on=False)
    if last.min() > 0 and last.max() > DECADE * last.min():
        logarithmic(axes, "x", times.min(), times.max())
    else:
        linear(axes, table["time"])
    axes.axhline(0.5, color=INK, lw=0.9, linestyle=(0, (1, 2)))
    axes.set(
        ylim=(0, 1.03),
        yticks=[0, 0.25, 0.5, 0.75, 1],
        xlabel=xlabel + (" (log scale)" if axes.get_xscale() == "log" else ""),
        ylabel="fraction of runs\nnot yet at the target",
    )
    return figure


def _drawn(evidence: Evidence, table: pd.DataFrame, target: str, axis: str) -> Drawing:
    records, unit = evidence.records, AXES[axis][1]
    several = evidence.survival["target"].nunique() > 1
    name = ["survival", _slug(target) * several, axis * (axis != records.budget.axis)]
    return Drawing(
        name="_".join(filter(None, name)),
        section="Survival",
        title=f"{target}, against {unit}",
        caption=captions.survival_caption(records, axis),
        alt=captions.survival_alt(table, target, unit),
        figure=steps(table, evidence.looks, unit),
    )


def _slug(target: str) -> str:
    return re.sub(r"[^\w.]+", "_", target.replace("≤", "")).strip("_")

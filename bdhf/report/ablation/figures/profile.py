"""Performance profiles: the share of instances that an arm solves within a factor of the best."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from bdhf.records import AXES
from bdhf.report.page.drawing import Drawing, Evidence
from bdhf.report.page.formatting import budgets, listed
from bdhf.report.page.style import DECADE, MOST_LINES, Look, canvas, ratios, styled
from bdhf.stats.summaries.costs import problem_axes
from bdhf.text.formatting import counted, number


def draw_profile(evidence: Evidence) -> tuple[Drawing, ...]:
    """One figure per target of `evidence.profile`; () where that table is empty."""
    table = evidence.profile
    if table.empty or table["arm"].nunique() > MOST_LINES:
        return ()
    groups = list(table.groupby("target", sort=False))
    return tuple(
        _drawn(evidence, lines, str(target), f"_{index}" if len(groups) > 1 else "")
        for index, (target, lines) in enumerate(groups, start=1)
    )


@styled()
def draw_shares(table: pd.DataFrame, looks: Mapping[str, Look]) -> Figure:
    """Step curves over the ratio to the best.

    `table`: columns `arm`, `ratio` (from 1) and `share`.
    """
    figure, (axes,) = canvas(1, looks)
    end = max(1.05 * float(table["ratio"].max()), 1.1)
    for arm, line in table.groupby("arm", sort=False):
        look = looks[str(arm)]
        x, y = [*line["ratio"], end], [*line["share"], line["share"].iloc[-1]]
        axes.step(x, y, where="post", **look.line)
        axes.plot(x[:1], y[:1], look.marker, color=look.colour, clip_on=False, zorder=3)
    if end > DECADE:
        ratios(axes, 1.0, end)
    axes.set(
        xlim=(1.0, end),
        ylim=(0, 1.03),
        yticks=[0, 0.25, 0.5, 0.75, 1],
        xlabel="cost ÷ cost of the best arm" + " (log scale)" * (end > DECADE),
        ylabel="share of instances\nsolved within this factor",
    )
    return figure


def _drawn(evidence: Evidence, table: pd.DataFrame, target: str, suffix: str) -> Drawing:
    arms = list(table["arm"].drop_duplicates())
    unit = AXES[evidence.records.budget.axis][1]
    lines = [_words(str(arm), line) for arm, line in table.groupby("arm", sort=False)]
    return Drawing(
        name=f"profile{suffix}",
        section="Performance profiles",
        title=f"{unit[:1].upper()}{unit[1:]} to {target}",
        caption=_caption(evidence, table, unit),
        alt=f"Share of instances solved to {target} within a factor of the best: "
        f"{'; '.join(lines)}.",
        figure=draw_shares(table, evidence.looks_of(arms)),
    )


def _caption(evidence: Evidence, table: pd.DataFrame, unit: str) -> tuple[str, ...]:
    whole, left_out = (int(table[name].iloc[0]) for name in ("instances", "left_out"))
    has_problems = bool(problem_axes(evidence.records))
    instance = "a problem with a seed" if has_problems else "a seed"
    parts = [
        f"An instance is {instance}. A line begins at the share of instances on which its arm is "
        "best, and ends at the share that it solves within the budget of "
        f"{budgets(evidence.records)} {unit}; higher is better. Removing an arm can change the "
        "order of the others.",
    ]
    if left_out:
        parts.append(
            f"Drawn from {whole} of {counted(whole + left_out, 'instance')}: in the others an arm "
            "has a run without an outcome."
        )
    else:
        parts.append(f"Drawn from {counted(whole, 'instance')}.")
    seen = set(table["arm"])
    absent = [a for a in evidence.records.arms if not has_problems and a not in seen]
    if absent:
        parts.append(f"Not drawn for lack of an outcome: {listed(absent)}.")
    return tuple(parts)


def _words(arm: str, line: pd.DataFrame) -> str:
    first, last = line.iloc[0], line.iloc[-1]
    if not last["share"]:
        return f"{arm} solves 0%"
    return (
        f"{arm} is the best on {first['share']:.0%} and solves {last['share']:.0%}, within "
        f"{number(last['ratio'], tidy=True)} times the best"
    )

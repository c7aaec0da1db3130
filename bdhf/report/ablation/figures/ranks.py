"""Ranks over problems: the mean rank of every arm, and which arms do not differ significantly."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bdhf.report.page.drawing import Drawing, Evidence
from bdhf.report.page.style import INK, listing, literal, looks, styled
from bdhf.stats.summaries.ranks import LEAST_PROBLEMS, Ranks
from bdhf.text.formatting import counted, number, p_value


def draw_ranks(evidence: Evidence) -> tuple[Drawing, ...]:
    """One figure per target; () with fewer than five problems or three arms."""
    several = len(evidence.ranks) > 1
    return tuple(
        _drawn(evidence, ranks, f"_{index}" if several else "")
        for index, ranks in enumerate(evidence.ranks, start=1)
    )


@styled()
def draw_mean_ranks(ranks: Ranks, colours: dict[str, str]) -> Figure:
    """A row per solver, the best on top; a bar joins those without a significant difference."""
    figure, axes = listing(len(ranks.solvers))
    for row, (solver, rank) in enumerate(zip(ranks.solvers, ranks.mean_ranks, strict=True)):
        axes.plot([rank], [row], "o", ms=8, color=colours[solver], zorder=3)
        axes.annotate(
            literal(solver, limit=60), (0, row - 0.4), xycoords=("axes fraction", "data"),
            va="center", fontsize=9,
        )  # fmt: skip
    for bar, (first, last) in enumerate(ranks.groups):
        _join(axes, first, last, 1.03 + 0.03 * bar)
    _scale(axes, ranks)
    axes.set_xlim(0.8, len(ranks.solvers) + 0.2)
    axes.set_xticks(range(1, len(ranks.solvers) + 1))
    axes.set_xlabel("mean rank over problems\n← better")
    return figure


def _drawn(evidence: Evidence, ranks: Ranks, suffix: str) -> Drawing:
    names = sorted(ranks.solvers, key=lambda solver: _place(evidence, solver))
    looks_by_name = looks(names)
    ranked = zip(ranks.solvers, ranks.mean_ranks, strict=True)
    return Drawing(
        name=f"ranks{suffix}",
        section="Ranks over problems",
        title=f"Costs to {ranks.target}",
        caption=_caption(ranks),
        alt=f"Mean rank over {counted(ranks.problems, 'problem')} of the cost to {ranks.target}: "
        f"{'; '.join(f'{solver} {number(rank)}' for solver, rank in ranked)}. {_joined(ranks)}",
        figure=draw_mean_ranks(ranks, {name: looks_by_name[name].colour for name in names}),
    )


def _place(evidence: Evidence, solver: str) -> tuple[int, str]:
    """Order solvers as the profile does, so that each has the colour of its line there."""
    arms = list(evidence.profile["arm"].drop_duplicates()) if len(evidence.profile) else []
    return (arms.index(solver) if solver in arms else len(arms), solver)


def _join(axes: Axes, first: int, last: int, x: float) -> None:
    """Draw a bar beside the panel, from one row to another."""
    across = axes.get_yaxis_transform()
    ends = [first - 0.15, last + 0.15]
    axes.plot([x, x], ends, color=INK, lw=3.5, transform=across, clip_on=False)


def _scale(axes: Axes, ranks: Ranks) -> None:
    """Draw the critical difference to scale, below the title."""
    end = len(ranks.solvers)
    start = max(end - ranks.critical_difference, 1.0)
    height = -0.55
    axes.plot([start, end], [height] * 2, "|-", color=INK, lw=1.2, ms=7, clip_on=False)
    axes.annotate(
        "critical difference", ((start + end) / 2, height), xytext=(0, 4),
        textcoords="offset points", ha="center", fontsize=9, annotation_clip=False,
    )  # fmt: skip


def _caption(ranks: Ranks) -> tuple[str, ...]:
    p = p_value(ranks.p, ranks.alpha)
    parts = [
        "On every problem the arms are ranked by the mean over seeds of their log cost, restricted "
        "at the budget. A bar joins arms whose mean ranks differ by less than the critical "
        f"difference of {number(ranks.critical_difference)} (Nemenyi’s test at "
        f"{number(ranks.alpha, tidy=True)}): they do not differ significantly.",
        f"Friedman’s test of equal ranks: χ² = {number(ranks.statistic)}, p "
        f"{p if p.startswith('<') else f'= {p}'}, over {counted(ranks.problems, 'problem')}.",
    ]
    if ranks.p > ranks.alpha:
        parts.append("It does not reject equality, so no difference here is significant.")
    if ranks.left_out:
        whole = ranks.problems + ranks.left_out
        parts.append(
            f"Drawn from {ranks.problems} of {counted(whole, 'problem')}: the others have no seed "
            "on which all arms have an outcome."
        )
    if ranks.problems < 2 * LEAST_PROBLEMS:
        parts.append(f"With {ranks.problems} problems only large differences are detectable.")
    return tuple(parts)


def _joined(ranks: Ranks) -> str:
    groups = [" to ".join((ranks.solvers[a], ranks.solvers[b])) for a, b in ranks.groups]
    return (
        f"No significant difference: {', '.join(groups)}."
        if groups
        else "All differ significantly."
    )

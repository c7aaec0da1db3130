"""Ranks over problems: the mean rank of every arm, and which ones are not told apart."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bdhf.report.page.drawing import Drawing, Evidence
from bdhf.report.page.style import INK, listing, literal, looks, styled
from bdhf.stats.summaries.ranks import LEAST_PROBLEMS, Ranks
from bdhf.text.formatting import counted, number, p_value


def draw_ranks(evidence: Evidence) -> tuple[Drawing, ...]:
    """One figure per target; none below five problems or three arms."""
    several = len(evidence.ranks) > 1
    return tuple(
        _drawn(evidence, found, f"_{place}" if several else "")
        for place, found in enumerate(evidence.ranks, start=1)
    )


@styled()
def draw_mean_ranks(found: Ranks, colours: dict[str, str]) -> Figure:
    """A row per solver, the best on top; a bar joins those that are not told apart."""
    figure, axes = listing(len(found.solvers))
    for row, (solver, rank) in enumerate(zip(found.solvers, found.mean_ranks, strict=True)):
        axes.plot([rank], [row], "o", ms=8, color=colours[solver], zorder=3)
        axes.annotate(
            literal(solver, limit=60), (0, row - 0.4), xycoords=("axes fraction", "data"),
            va="center", fontsize=9,
        )  # fmt: skip
    for place, (first, last) in enumerate(found.groups):
        _join(axes, first, last, 1.03 + 0.03 * place)
    _scale(axes, found)
    axes.set_xlim(0.8, len(found.solvers) + 0.2)
    axes.set_xticks(range(1, len(found.solvers) + 1))
    axes.set_xlabel("mean rank over problems\n← better")
    return figure


def _drawn(evidence: Evidence, found: Ranks, suffix: str) -> Drawing:
    names = sorted(found.solvers, key=lambda solver: _place(evidence, solver))
    known = looks(names)
    ranked = zip(found.solvers, found.mean_ranks, strict=True)
    return Drawing(
        name=f"ranks{suffix}",
        section="Ranks over problems",
        title=f"Costs to {found.target}",
        caption=_caption(found),
        alt=f"Mean rank over {counted(found.problems, 'problem')} of the cost to {found.target}: "
        f"{'; '.join(f'{solver} {number(rank)}' for solver, rank in ranked)}. {_joined(found)}",
        figure=draw_mean_ranks(found, {name: known[name].colour for name in names}),
    )


def _place(evidence: Evidence, solver: str) -> tuple[int, str]:
    """The first arm that a solver is, so that it has the colour of its line in the profile."""
    arms = list(evidence.profile["arm"].drop_duplicates()) if len(evidence.profile) else []
    return (arms.index(solver) if solver in arms else len(arms), solver)


def _join(axes: Axes, first: int, last: int, x: float) -> None:
    """A bar beside the panel, from one row to another."""
    across = axes.get_yaxis_transform()
    ends = [first - 0.15, last + 0.15]
    axes.plot([x, x], ends, color=INK, lw=3.5, transform=across, clip_on=False)


def _scale(axes: Axes, found: Ranks) -> None:
    """How long the critical difference is, below the title."""
    end = len(found.solvers)
    start = max(end - found.critical_difference, 1.0)
    height = -0.55
    axes.plot([start, end], [height] * 2, "|-", color=INK, lw=1.2, ms=7, clip_on=False)
    axes.annotate(
        "critical difference", ((start + end) / 2, height), xytext=(0, 4),
        textcoords="offset points", ha="center", fontsize=9, annotation_clip=False,
    )  # fmt: skip


def _caption(found: Ranks) -> tuple[str, ...]:
    p = p_value(found.p, found.alpha)
    parts = [
        "On every problem the arms are ranked by the mean over seeds of the log of their cost, "
        "restricted at the budget. A bar joins arms whose mean ranks differ by less than the "
        f"critical difference of {number(found.critical_difference)} (Nemenyi’s test at "
        f"{number(found.alpha, tidy=True)}): they are not told apart.",
        f"Friedman’s test that all are equal: χ² = {number(found.statistic)}, p "
        f"{p if p.startswith('<') else f'= {p}'}, over {counted(found.problems, 'problem')}.",
    ]
    if found.p > found.alpha:
        parts.append("It does not reject that, so no difference here counts.")
    if found.left_out:
        whole = found.problems + found.left_out
        parts.append(
            f"Drawn from {found.problems} of {counted(whole, 'problem')}: on the others some arm "
            "has no seed with an outcome of all."
        )
    if found.problems < 2 * LEAST_PROBLEMS:
        parts.append(f"With {found.problems} problems only large differences show.")
    return tuple(parts)


def _joined(found: Ranks) -> str:
    groups = [" to ".join((found.solvers[a], found.solvers[b])) for a, b in found.groups]
    return f"Not told apart: {', '.join(groups)}." if groups else "All are told apart."

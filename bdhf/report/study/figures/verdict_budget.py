"""The verdict against the tuning budget: how often a candidate is ahead after k trials each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bdhf.report.page.drawing import Drawing
from bdhf.report.page.style import INK, Look, canvas, key, literal, styled
from bdhf.report.study.evidence import StudyEvidence
from bdhf.stats.result import Verdict
from bdhf.stats.studies.tuning_budget import Ahead
from bdhf.text.formatting import counted, percent

_HEIGHTS = {1: 2.6}
_STACKED = 1.7
_EACH, _ALL = "-", (0, (4, 2))


def verdict_budget(evidence: StudyEvidence) -> tuple[Drawing, ...]:
    """One figure for each pair of arms of the spec, with a panel for each batch size."""
    names = {cell.arm.label: cell.arm.name for cell in evidence.cells}
    groups: dict[tuple[str, str, str], list[Ahead]] = {}
    for ahead in evidence.ahead:
        sides = names[ahead.candidate], names[ahead.baseline]
        groups.setdefault((*sides, ahead.objective), []).append(ahead)
    return tuple(
        Drawing(
            name=f"verdict_budget_{index}" if len(groups) > 1 else "verdict_budget",
            section="Verdict against the tuning budget",
            title=f"{candidate} against {baseline}",
            caption=_caption(group[0].alpha),
            alt="Share of resamples in which the candidate is ahead, against the trials of each "
            f"arm: {'; '.join(_words(ahead, evidence.verdicts) for ahead in group)}.",
            figure=draw_verdict_shares(group, evidence.looks[candidate], evidence.verdicts),
        )
        for index, ((candidate, baseline, _), group) in enumerate(groups.items(), start=1)
    )


@styled()
def draw_verdict_shares(
    group: Sequence[Ahead], look: Look, verdicts: Mapping[str, Verdict]
) -> Figure:
    """A panel per comparison, in the colour of the candidate."""
    figure, panels = canvas(len(group), {}, _HEIGHTS.get(len(group), _STACKED))
    for axes, ahead in zip(panels, group, strict=True):
        verdict = settled(ahead, verdicts)
        _panel(axes, ahead, look, verdict)
        words = f"{literal(ahead.name, limit=50)}: {_held(ahead, verdict)}"
        axes.set_title(words, loc="left", fontsize=9)
    panels[len(panels) // 2].set_ylabel("resamples in which\nthe candidate is ahead")
    panels[-1].set_xlabel("trials k")
    panels[-1].xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    marks = any(ahead.holds_from(settled(ahead, verdicts)) for ahead in group)
    mark = Line2D([], [], color=look.colour, marker="D", ls="", ms=7)
    key(
        figure,
        {
            "k trials of each arm": Line2D([], [], color=look.colour, ls=_EACH),
            "k of the candidate, all of the baseline": Line2D([], [], color=look.colour, ls=_ALL),
        }
        | ({"the verdict holds from here": mark} if marks else {}),
    )
    return figure


def settled(ahead: Ahead, verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on held-out seeds; without it, that of all trials."""
    return verdicts.get(ahead.name, ahead.leads)


def _panel(axes: Axes, ahead: Ahead, look: Look, verdict: Verdict) -> None:
    k = np.arange(1, ahead.trials + 1)
    for level in (ahead.alpha, 1 - ahead.alpha):
        axes.axhline(level, color=INK, ls=":", lw=1.2)
    axes.axhline(0.5, color=INK, lw=0.7, alpha=0.4)
    axes.plot(k, ahead.shares, color=look.colour, ls=_EACH)
    axes.plot(k, ahead.against_all, color=look.colour, ls=_ALL, lw=1.4)
    first = ahead.holds_from(verdict)
    if first is not None:
        share = ahead.shares[first - 1]
        axes.plot([first], [share], "D", color=look.colour, ms=7, zorder=4, clip_on=False)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _caption(alpha: float) -> tuple[str, ...]:
    return (
        "Share of resamples of the trials in which the best value of the candidate is lower than "
        f"that of the baseline; ties count half. Dotted: {percent(alpha)} and "
        f"{percent(1 - alpha)}. A verdict holds from k on if the share stays beyond the dotted "
        "line on its side from there. Dashed: best of k trials of the candidate against the best "
        "of all trials of the baseline.",
    )


def _held(ahead: Ahead, verdict: Verdict) -> str:
    """The verdict, and for better or worse the number of trials from which it holds."""
    if verdict not in (Verdict.BETTER, Verdict.WORSE):
        return str(verdict)
    first = ahead.holds_from(verdict)
    return f"{verdict}, from {counted(first, 'trial')} on" if first else f"{verdict}, does not hold"


def _words(ahead: Ahead, verdicts: Mapping[str, Verdict]) -> str:
    held = _held(ahead, settled(ahead, verdicts))
    return (
        f"{ahead.name} from {ahead.shares[0]:.0%} with 1 trial to {ahead.shares[-1]:.0%} with "
        f"{ahead.trials}, {held}"
    )

"""The words beside a figure: how to read it, and what is seen in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bdhf.records import AXES, Records, Status
from bdhf.report.ablation.curve_bands import AT_BUDGET, AT_TARGET, DIVERGED
from bdhf.report.page.formatting import budgets, listed, metric_name
from bdhf.stats.observations.hardware import kinds_of
from bdhf.stats.observations.targets import OUTCOMES
from bdhf.stats.scaling.means import fewest
from bdhf.stats.scaling.scaling import sized
from bdhf.text.formatting import counted, number


def curves_caption(
    records: Records, table: pd.DataFrame, axis: str, idle: Sequence[str] = ()
) -> tuple[str, ...]:
    """How to read training curves, with what this table (`bands.bands`) needs and no more.

    `idle` are the arms that have spent nothing on this axis, and are not drawn.
    """
    ends, own = set(table["end"]), axis == records.budget.axis
    parts = ["Line: median over seeds; band: the middle half of them."]
    if axis != "updates":
        parts.append("Between its evaluations a run’s loss is taken as linear.")
    if AT_TARGET in ends:
        parts.append(STOPPED_ABOVE if _are_upward(records) else STOPPED)
    if AT_BUDGET in ends and not own:
        line = "A line without a marker" if AT_TARGET in ends else "A line"
        parts.append(
            f"{line} ends where the first run of its arm had used up the budget of "
            f"{_budget(records)}."
        )
    if AT_BUDGET in ends and own and AT_TARGET in ends:
        parts.append("A line without a marker ran to the end of the budget.")
    if DIVERGED in ends:
        parts.append("A line ends in a cross where more than half of its runs have diverged.")
    if np.isinf(table[["low", "high"]].to_numpy(float)).any():
        parts.append(_OPEN_ABOVE if _are_upward(records) else _OPEN)
    if idle:
        parts.append(f"Not drawn: {listed(list(idle))}, which spent no {AXES[axis][1]}.")
    return (*parts, *_left_out(records))


STOPPED = (
    "Runs stop at their target, and from then on rank below those still training. A line ends, "
    "with a marker, where half of its runs have stopped: up to there its median is that of a run "
    "still training, whatever the others would have done below the target. Once a quarter have "
    "stopped, the lower edge of the band is read from their last losses, and is an upper bound."
)
_OPEN = (
    "Where a quarter of an arm’s runs have diverged, its band has no upper edge, and only its "
    "lower half is drawn."
)

STOPPED_ABOVE = (
    "Runs stop at their target, and from then on rank as better than those still training. A line "
    "ends, with a marker, where half of its runs have stopped: up to there its median is that of a "
    "run still training, whatever the others would have done beyond the target. Once a quarter "
    "have stopped, the better edge of the band is read from their last values, and is a bound."
)
_OPEN_ABOVE = (
    "Where a quarter of an arm’s runs have diverged, its band has no worse edge, and only its "
    "better half is drawn."
)


def _are_upward(records: Records) -> bool:
    return any(target.is_upward for target in records.targets)


def curves_alt(table: pd.DataFrame, unit: str) -> str:
    """What is seen in training curves: where every median begins and ends."""
    parts = []
    for metric, panel in table.groupby("metric", sort=False):
        lines = [_line_alt(str(arm), line, unit) for arm, line in panel.groupby("arm", sort=False)]
        parts.append(f"Median {metric_name(str(metric))} against {unit}: {'; '.join(lines)}.")
    return " ".join(parts)


def survival_caption(records: Records, axis: str) -> tuple[str, ...]:
    """How to read survival curves against an axis."""
    parts = [
        "Each step down is a run that reached the target (Kaplan–Meier estimate); a line crosses ½ "
        "at the arm’s median cost.",
        f"What is left at the end (the budget of {_budget(records)}) has missed the target."
        if axis == records.budget.axis
        else "A line that stops above 0 ends where the first run of its arm to miss had spent "
        "the budget of "
        f"{_budget(records)}: beyond, not every run was watched.",
    ]
    return (*parts, *_left_out(records))


def survival_alt(table: pd.DataFrame, target: str, unit: str) -> str:
    """What is seen in survival curves: the median and the rest of every arm."""
    lines = [_steps_alt(str(arm), line, unit) for arm, line in table.groupby("arm", sort=False)]
    return f"Fraction of runs that have not reached {target}, against {unit}: {'; '.join(lines)}."


HOLLOW = "A hollow point with an arrow holds runs that missed the target: it is a lower bound."


def seconds_of_sizes(
    records: Records, sizes: pd.DataFrame, groups: Sequence[str]
) -> tuple[str, ...]:
    """How to read seconds against the batch size, with which runs they are those of.

    `sizes`: the means of one target in seconds; `groups` are those with a mean in updates.
    """
    parts = [
        "Point: geometric mean over seeds; the lines join them without a fit. Star: the critical "
        "batch size of the updates, with its interval, where it lies among the sizes. Beyond it a "
        "larger batch saves hardly any updates; what it costs in seconds is seen here."
    ]
    if (sizes["hits"] < sizes["runs"]).any():
        parts += [HOLLOW, "A miss counts as the seconds for which it was watched."]
    lines = [_fewest(str(group), line) for group, line in sizes.groupby("group", sort=False)]
    parts.append(f"Fewest seconds, as the points have it and without a test: {'; '.join(lines)}.")
    seen = set(sizes["group"])
    absent = [group for group in groups if group not in seen]
    if absent:
        parts.append(f"Not drawn, without seconds: {listed(absent)}.")
    return (*parts, *_timed(records, int(sizes["runs"].sum())))


def _fewest(group: str, line: pd.DataFrame) -> str:
    found = fewest(line)
    if found is None:
        return f"{group} not known, runs missed at every B"
    edge = {-1: ", the smallest that was run", 1: ", the largest that was run", 0: ""}[found.edge]
    rivals = listed([number(rival, tidy=True) for rival in found.rivals])
    open_ = f", if not at B = {rivals}, where runs missed" if rivals else ""
    at = f"B = {number(found.size, tidy=True)} ({number(found.cost)} s)"
    return f"{group} at {at}{edge}{open_}"


def _timed(records: Records, drawn: int) -> list[str]:
    """Sentences on runs whose seconds are not drawn, and on those that were not alone."""
    runs = sized(records)
    kept = runs[~runs["elsewhere"]]
    apart, silent = len(runs) - len(kept), len(kept) - drawn
    parts = []
    unknown = int((kinds_of(kept["run_id"], records.environments) == "").sum())
    if unknown:
        parts.append(f"The hardware of {counted(unknown, 'run')} was not recorded.")
    if apart:
        parts.append(
            f"Only one kind of machine is drawn, that of most runs: {apart} of "
            f"{counted(len(runs), 'run')} {'is' if apart == 1 else 'are'} left out."
        )
    if silent > 0:
        parts.append(f"Not in it: {counted(silent, 'run')} without recorded seconds.")
    if "concurrent" in records.environments:
        company = kept["run_id"].map(records.environments.set_index("run_id")["concurrent"])
        if (shared := int((company > 1).sum())) > 0:
            parts.append(
                f"{shared} of {counted(len(kept), 'run')} shared the machine with others, up to "
                f"{company.max():.0f} at once: seconds depend on what else ran there."
            )
    return parts


def course(arm: str, line: pd.DataFrame, unit: str) -> str:
    """Where the medians of an arm begin and end; `line`: columns `x` (in units) and `median`."""
    first, last = line.iloc[0], line.iloc[-1]
    return (
        f"{arm} goes from {number(first['median'])} to {number(last['median'])} "
        f"at {number(last['x'], tidy=True)} {unit}"
    )


def _line_alt(arm: str, line: pd.DataFrame, unit: str) -> str:
    endings = {
        AT_TARGET: ", where half of its runs have reached the target",
        DIVERGED: ", where more than half of its runs have diverged",
    }
    return course(arm, line, unit) + endings.get(line["end"].iloc[-1], "")


def _steps_alt(arm: str, line: pd.DataFrame, unit: str) -> str:
    half = line.loc[line["surviving"] <= 0.5, "time"]
    left = float(line["surviving"].iloc[-1])
    if half.empty:
        return f"{arm} stays above one half, and ends at {left:.0%}"
    median = f"{arm} crosses one half at {number(half.iloc[0], tidy=True)} {unit}"
    return f"{median} and ends at {left:.0%}"


def _left_out(records: Records) -> list[str]:
    """Sentences on diverged runs and on runs that have no outcome; none when there are none."""
    status = records.runs["status"]
    diverged = int((status == Status.DIVERGED).sum())
    missing = int((~status.isin(OUTCOMES)).sum())
    parts = []
    if diverged:
        verb = "counts" if diverged == 1 else "count"
        parts.append(f"{counted(diverged, 'diverged run')} {verb} as worse than all others.")
    if missing:
        drawn = len(status) - missing
        parts.append(f"Drawn from {drawn} of {counted(len(status), 'run')}: {_short(records)}.")
    return parts


def _short(records: Records) -> str:
    """Which arms lack runs: "adam 7 of 8"."""
    known = records.runs["status"].isin(OUTCOMES)
    rows = known.groupby(records.runs["arm"]).agg(["sum", "size"])
    rows = rows.reindex([a for a in records.arms if a in rows.index])
    short = [f"{arm} {k} of {n}" for arm, k, n in rows.itertuples() if k < n]
    return listed(short)


def _budget(records: Records) -> str:
    return f"{budgets(records)} {AXES[records.budget.axis][1]}"

"""Captions and alternative texts: how to read a figure, and what it shows."""

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
    """How to read training curves; only the sentences that this table needs.

    `table`: that of `curve_bands.bands`. `idle`: arms that spent nothing on this axis; they are
    not drawn.
    """
    ends, own = set(table["end"]), axis == records.budget.axis
    parts = ["Line: median over seeds; band: interquartile range."]
    if axis != "updates":
        parts.append("Losses are interpolated linearly between evaluations.")
    if AT_TARGET in ends:
        parts.append(STOPPED_ABOVE if _are_upward(records) else STOPPED)
    if AT_BUDGET in ends and not own:
        line = "A line without a marker" if AT_TARGET in ends else "A line"
        parts.append(
            f"{line} ends where the first run of its arm spent the budget of {_budget(records)}."
        )
    if AT_BUDGET in ends and own and AT_TARGET in ends:
        parts.append("A line without a marker extends to the budget.")
    if DIVERGED in ends:
        parts.append("A cross ends a line where more than half of its runs have diverged.")
    if np.isinf(table[["low", "high"]].to_numpy(float)).any():
        parts.append(_OPEN_ABOVE if _are_upward(records) else _OPEN)
    if idle:
        parts.append(f"Not drawn: {listed(list(idle))}, which spent no {AXES[axis][1]}.")
    return (*parts, *_left_out(records))


STOPPED = (
    "A run stops at its target and then ranks below all runs that still train. A line ends, with a "
    "marker, where half of its runs have stopped, so its median is always the loss of a run that "
    "still trains. Once a quarter have stopped, the lower edge of the band is taken from their "
    "last losses and is an upper bound."
)
_OPEN = (
    "Where a quarter of an arm’s runs have diverged, the band has no upper edge: only its lower "
    "half is drawn."
)

STOPPED_ABOVE = (
    "A run stops at its target and then ranks as better than all runs that still train. A line "
    "ends, with a marker, where half of its runs have stopped, so its median is always the value "
    "of a run that still trains. Once a quarter have stopped, the better edge of the band is taken "
    "from their last values and is a bound."
)
_OPEN_ABOVE = (
    "Where a quarter of an arm’s runs have diverged, the band has no worse edge: only its better "
    "half is drawn."
)


def _are_upward(records: Records) -> bool:
    return any(target.is_upward for target in records.targets)


def curves_alt(table: pd.DataFrame, unit: str) -> str:
    """What training curves show: where every median begins and ends."""
    parts = []
    for metric, panel in table.groupby("metric", sort=False):
        lines = [_line_alt(str(arm), line, unit) for arm, line in panel.groupby("arm", sort=False)]
        parts.append(f"Median {metric_name(str(metric))} against {unit}: {'; '.join(lines)}.")
    return " ".join(parts)


def survival_caption(records: Records, axis: str) -> tuple[str, ...]:
    """How to read survival curves against an axis."""
    parts = [
        "Kaplan–Meier estimate: each step down is a run that reached the target; a line crosses ½ "
        "at the median cost of its arm.",
        f"Runs that remain at the budget of {_budget(records)} missed the target."
        if axis == records.budget.axis
        else "A line that ends above 0 ends where the first of its runs that missed the target "
        f"spent the budget of {_budget(records)}: beyond, not every run was observed.",
    ]
    return (*parts, *_left_out(records))


def survival_alt(table: pd.DataFrame, target: str, unit: str) -> str:
    """What survival curves show: the median of every arm, and the fraction that remains."""
    lines = [_steps_alt(str(arm), line, unit) for arm, line in table.groupby("arm", sort=False)]
    return f"Fraction of runs that have not reached {target}, against {unit}: {'; '.join(lines)}."


HOLLOW = "A hollow point with an arrow includes runs that missed the target: it is a lower bound."


def seconds_of_sizes(
    records: Records, sizes: pd.DataFrame, groups: Sequence[str]
) -> tuple[str, ...]:
    """How to read seconds against the batch size, and which runs they come from.

    `sizes`: the means of one target in seconds; `groups` are those with a mean in updates.
    """
    parts = [
        "Point: geometric mean over seeds, joined by lines without a fit. Star: the critical batch "
        "size for updates, with its interval, if it lies within the sizes. Beyond it a larger "
        "batch saves few updates; this figure shows what it costs in seconds."
    ]
    if (sizes["hits"] < sizes["runs"]).any():
        parts += [HOLLOW, "A miss counts with the seconds that were observed."]
    lines = [_fewest(str(group), line) for group, line in sizes.groupby("group", sort=False)]
    parts.append(f"Fewest seconds among the points, without a test: {'; '.join(lines)}.")
    seen = set(sizes["group"])
    absent = [group for group in groups if group not in seen]
    if absent:
        parts.append(f"Not drawn for lack of seconds: {listed(absent)}.")
    return (*parts, *_timed(records, int(sizes["runs"].sum())))


def _fewest(group: str, line: pd.DataFrame) -> str:
    cheapest = fewest(line)
    if cheapest is None:
        return f"{group} unknown, since runs missed at every B"
    edge = {-1: ", the smallest size", 1: ", the largest size", 0: ""}[cheapest.edge]
    alternatives = listed([number(size, tidy=True) for size in cheapest.alternatives])
    open_ = f", or possibly at B = {alternatives}, where runs missed" if alternatives else ""
    at = f"B = {number(cheapest.size, tidy=True)} ({number(cheapest.cost)} s)"
    return f"{group} at {at}{edge}{open_}"


def _timed(records: Records, drawn: int) -> list[str]:
    """Sentences on runs whose seconds are not drawn, and on runs that shared their machine."""
    runs = sized(records)
    kept = runs[~runs["elsewhere"]]
    apart, silent = len(runs) - len(kept), len(kept) - drawn
    parts = []
    unknown = int((kinds_of(kept["run_id"], records.environments) == "").sum())
    if unknown:
        parts.append(f"The hardware of {counted(unknown, 'run')} was not recorded.")
    if apart:
        parts.append(
            f"Only the most common kind of machine is drawn: {apart} of "
            f"{counted(len(runs), 'run')} {'is' if apart == 1 else 'are'} left out."
        )
    if silent > 0:
        parts.append(f"Left out: {counted(silent, 'run')} without recorded seconds.")
    if "concurrent" in records.environments:
        company = kept["run_id"].map(records.environments.set_index("run_id")["concurrent"])
        if (shared := int((company > 1).sum())) > 0:
            parts.append(
                f"{shared} of {counted(len(kept), 'run')} shared their machine, up to "
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
    """Sentences on diverged runs and on runs without an outcome."""
    status = records.runs["status"]
    diverged = int((status == Status.DIVERGED).sum())
    missing = int((~status.isin(OUTCOMES)).sum())
    parts = []
    if diverged:
        verb = "counts" if diverged == 1 else "count"
        parts.append(f"{counted(diverged, 'diverged run')} {verb} as worse than all others.")
    if missing:
        drawn = len(status) - missing
        parts.append(f"Drawn from {drawn} of {counted(len(status), 'run')} ({_short(records)}).")
    return parts


def _short(records: Records) -> str:
    """Which arms lack runs: "adam 7 of 8"."""
    has_outcome = records.runs["status"].isin(OUTCOMES)
    rows = has_outcome.groupby(records.runs["arm"]).agg(["sum", "size"])
    rows = rows.reindex([a for a in records.arms if a in rows.index])
    short = [f"{arm} {k} of {n}" for arm, k, n in rows.itertuples() if k < n]
    return listed(short)


def _budget(records: Records) -> str:
    return f"{budgets(records)} {AXES[records.budget.axis][1]}"

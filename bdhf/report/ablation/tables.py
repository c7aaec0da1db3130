"""Tables of the page apart from comparisons: every run, how runs ended, final losses."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from bdhf.records import AXES, NOT_RUN, UNCOUNTED, Records, Rise, Status, rises, uncounted
from bdhf.report.ablation.totals import Spread, at, evaluations, spread_in_words, total
from bdhf.report.page.formatting import metric_name
from bdhf.stats.observations.targets import OUTCOMES, observe_targets
from bdhf.text.formatting import NONE, number, whole


@dataclass(frozen=True)
class EndReason:
    """Why a run ended: one line, and the whole text if it is longer."""

    line: str
    whole: str  # "" if the line is the whole text


@dataclass(frozen=True)
class RunRow:
    """One planned cell, as text."""

    anchor: str  # its id in the page
    arm: str
    seed: str
    run_id: str
    status: str
    reason: EndReason
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class RunTable:
    """Every planned cell; `heads` name the numbers of a row."""

    heads: tuple[str, ...]
    rows: tuple[RunRow, ...]

    @property
    def first(self) -> dict[str, str]:
        """Arm -> the id of its first row in the page."""
        return {row.arm: row.anchor for row in reversed(self.rows)}


@dataclass(frozen=True)
class LossRow:
    """The final losses of an arm: median and quartiles per metric, as text."""

    arm: str
    runs: str  # with an outcome, of those planned
    diverged: int  # of those with an outcome
    cells: tuple[Spread, ...]


def statuses(records: Records) -> dict[str, int]:
    """The number of runs with each status, `done` first; statuses without a run are left out."""
    status = records.runs["status"].astype(object)
    seen = status.fillna(records.runs["reason"].map(uncounted)).value_counts()
    order = [*(str(s) for s in Status), NOT_RUN, *UNCOUNTED.values()]
    return {name: int(seen[name]) for name in order if name in seen}


def runs(records: Records) -> RunTable:
    """Every planned cell in the order of the records, with its costs and losses."""
    _, last = evaluations(records)
    cells = records.runs
    columns = {
        "updates": total(last, cells, "update").map(whole),
        "seconds": total(last, cells, "seconds").map(number),
        **_to_target(records),
    }
    for metric in ("val_loss", "test_loss"):
        lost = (cells["status"] == Status.DIVERGED.value) & at(last, cells, "update").notna()
        value = at(last, cells, metric)
        columns[metric_name(metric)] = value.map(number).mask(lost & value.isna(), "NaN")
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    risen = rises(cells, records.curves)
    cell = cells[["arm", "seed", "run_id", "status", "reason"]].itertuples(index=False)
    return RunTable(
        heads=tuple(columns),
        rows=tuple(
            RunRow(
                anchor=anchor,
                arm=str(arm),
                seed=str(seed),
                run_id=_text(run),
                status=_text(status) or uncounted(why),
                reason=_why(why, risen.get(_text(run))),
                numbers=row,
            )
            for anchor, (arm, seed, run, status, why), row in zip(
                anchors(records), cell, rows, strict=True
            )
        ),
    )


def anchors(records: Records) -> tuple[str, ...]:
    """The id in the page of every planned cell's row; cells may share a run and its run id."""
    ids = enumerate(records.runs["run_id"], start=1)
    return tuple(re.sub(r"\W+", "-", f"run-{_text(run)}-{row}") for row, run in ids)


def final_losses(records: Records) -> tuple[tuple[str, ...], tuple[LossRow, ...]]:
    """Heads and rows of the final losses: validation, then test, then other such metrics.

    They are the losses at the last evaluation of runs with an outcome; a diverged run counts with
    its loss before the first update.
    """
    metrics = _metrics(records.curves)
    outcome = records.runs[records.runs["status"].isin(OUTCOMES)]
    diverged = outcome["status"] == Status.DIVERGED.value
    first, last = evaluations(records)
    rows = []
    for arm in records.arms:
        is_of_arm = outcome["arm"] == arm
        planned = int((records.runs["arm"] == arm).sum())
        cells = []
        for metric in metrics:
            final = at(last, outcome[is_of_arm & ~diverged], metric)
            cells.append(
                spread_in_words([*final, *at(first, outcome[is_of_arm & diverged], metric)])
            )
        rows.append(
            LossRow(
                arm,
                f"{int(is_of_arm.sum())} of {planned}",
                int((is_of_arm & diverged).sum()),
                tuple(cells),
            )
        )
    return tuple(metric_name(m) for m in metrics), tuple(rows)


def reason(text: object) -> EndReason:
    r"""The line of a reason to show: the last line of a traceback, else the first line.

    >>> reason("Traceback (most recent call last):\n  File ...\nValueError: no").line
    'ValueError: no'
    >>> reason(None)
    EndReason(line='', whole='')
    """
    whole = _text(text).strip()
    lines = [line.strip() for line in whole.splitlines() if line.strip()]
    if not lines or whole == NOT_RUN:
        return EndReason("", "")  # the status states it
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    short = line if len(line) <= 90 else line[:89] + "…"
    return EndReason(short, "" if short == whole else whole)


def _why(ended: object, rise: Rise | None) -> EndReason:
    """Why a run ended, and whether its loss ended above that before the first update."""
    return reason(ended if rise is None else f"{_text(ended)}; ended above its start: {rise}")


def _metrics(curves: pd.DataFrame) -> list[str]:
    """Measured validation and test metrics, losses first, without duplicates."""
    own = [str(c) for c in curves if str(c).startswith(("val_", "test_"))]
    metrics: list[str] = []
    for metric in dict.fromkeys(["val_loss", "test_loss", *own]):
        is_measured = metric in curves and curves[metric].notna().any()
        if is_measured and not any(curves[metric].equals(curves[other]) for other in metrics):
            metrics.append(metric)
    return metrics


def _to_target(records: Records) -> dict[str, pd.Series[str]]:
    """The cost to each target on the axis of the budget, or that the run missed it."""
    columns = {}
    for target in records.targets:
        seen = observe_targets(records.runs, records.curves, target, records.budget.axis)
        outcome = seen["status"].isin(OUTCOMES) | seen["reached"]
        words = seen["time"].map(whole).where(seen["reached"], "missed").where(outcome, NONE)
        columns[f"{AXES[records.budget.axis][1]} to {target.label}"] = words
    return columns


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""

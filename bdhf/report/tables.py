"""What the page tabulates beside the comparisons: every run, how runs ended, final losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bdhf.records import AXES, NOT_RUN, Records, Status
from bdhf.report.bands import quartiles
from bdhf.report.wording import NONE, count, metric_name, number
from bdhf.stats.targets import OUTCOMES, observe


@dataclass(frozen=True)
class Reason:
    """Why a run ended as it did: one line, and the whole text where there is more."""

    line: str
    whole: str  # empty when the line says it all


@dataclass(frozen=True)
class RunRow:
    """One planned cell, in words."""

    arm: str
    seed: str
    run_id: str
    status: str
    reason: Reason
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class RunTable:
    """Every planned cell, none left out; `heads` name the numbers of a row."""

    heads: tuple[str, ...]
    rows: tuple[RunRow, ...]


@dataclass(frozen=True)
class LossRow:
    """The final losses of an arm: per metric the median and the two quartiles, in words."""

    arm: str
    runs: str  # with an outcome, of those planned
    diverged: int  # of those with an outcome
    cells: tuple[tuple[str, str], ...]


def statuses(records: Records) -> dict[str, int]:
    """How many runs ended in which way, `done` first; ways that no run took are left out."""
    status = records.runs["status"].astype(object)
    seen = status.where(status.notna(), NOT_RUN).value_counts()
    order = [*(str(s) for s in Status), NOT_RUN]
    return {name: int(seen[name]) for name in order if name in seen}


def runs(records: Records) -> RunTable:
    """Every planned cell in the order of arms and seeds, with what it spent and reached.

    A total that was not recorded is that of the last evaluation.
    """
    _, last = _evaluations(records)
    place = {arm: i for i, arm in enumerate(records.arms)}
    cells = records.runs.assign(_place=records.runs["arm"].map(place).fillna(len(place)))
    cells = cells.sort_values(["_place", "arm", "seed"], kind="stable")
    columns = {"updates": _total(cells, last, "update"), "seconds": _total(cells, last, "seconds")}
    columns |= _to_target(records, cells)
    for metric in ("val_loss", "test_loss"):
        lost = (cells["status"] == Status.DIVERGED.value) & _final(cells, last, "update").notna()
        value = _final(cells, last, metric)
        columns[metric_name(metric)] = value.map(number).mask(lost & value.isna(), "NaN")
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    cell = zip(
        cells["arm"], cells["seed"], cells["run_id"], cells["status"], cells["reason"], strict=True
    )
    return RunTable(
        heads=tuple(columns),
        rows=tuple(
            RunRow(str(arm), str(seed), _text(run_id), _text(status) or NOT_RUN, reason(why), row)
            for (arm, seed, run_id, status, why), row in zip(cell, rows, strict=True)
        ),
    )


def losses(records: Records) -> tuple[tuple[str, ...], tuple[LossRow, ...]]:
    """Heads and rows of the final losses: validation, then test, then other such metrics.

    The loss at the last evaluation of every run with an outcome; a diverged run counts with its
    loss at its first evaluation, before any update.
    """
    metrics = _metrics(records.curves)
    outcome = records.runs[records.runs["status"].isin(OUTCOMES)]
    diverged = outcome["status"] == Status.DIVERGED.value
    first, last = _evaluations(records)
    rows = []
    for arm in records.arms:
        mine = outcome["arm"] == arm
        planned = int((records.runs["arm"] == arm).sum())
        cells = []
        for metric in metrics:
            final = _final(outcome[mine & ~diverged], last, metric)
            cells.append(_quartiles([*final, *_final(outcome[mine & diverged], first, metric)]))
        rows.append(
            LossRow(
                arm, f"{int(mine.sum())} of {planned}", int((mine & diverged).sum()), tuple(cells)
            )
        )
    return tuple(metric_name(m) for m in metrics), tuple(rows)


def reason(text: object) -> Reason:
    r"""The line of a reason to show at once: of a traceback the last, else the first.

    >>> reason("Traceback (most recent call last):\n  File ...\nValueError: no").line
    'ValueError: no'
    >>> reason(None)
    Reason(line='', whole='')
    """
    whole = _text(text).strip()
    lines = [line.strip() for line in whole.splitlines() if line.strip()]
    if not lines or whole == NOT_RUN:
        return Reason("", "")  # the status says it
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    short = line if len(line) <= 90 else line[:89] + "…"
    return Reason(short, "" if short == whole else whole)


def _metrics(curves: pd.DataFrame) -> list[str]:
    """Measured validation and test metrics, losses first; one that repeats another is left out."""
    own = [str(c) for c in curves if str(c).startswith(("val_", "test_"))]
    metrics: list[str] = []
    for metric in dict.fromkeys(["val_loss", "test_loss", *own]):
        known = metric in curves and curves[metric].notna().any()
        if known and not any(curves[metric].equals(curves[other]) for other in metrics):
            metrics.append(metric)
    return metrics


def _evaluations(records: Records) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The first and the last evaluation of every run, by arm and seed."""
    ordered = records.curves.sort_values("update", kind="stable")
    runs = ordered.groupby(["arm", "seed"], sort=False)
    return runs.head(1).set_index(["arm", "seed"]), runs.tail(1).set_index(["arm", "seed"])


def _final(cells: pd.DataFrame, evaluations: pd.DataFrame, column: str) -> pd.Series[float]:
    """A column of each cell's evaluation, NaN where the cell has none."""
    keys = pd.MultiIndex.from_frame(cells[["arm", "seed"]])
    values = evaluations.reindex(columns=[column])[column].reindex(keys)
    return pd.Series(values.to_numpy(float, na_value=np.nan), index=cells.index)


def _total(cells: pd.DataFrame, last: pd.DataFrame, column: str) -> pd.Series[str]:
    recorded = cells.reindex(columns=[column])[column].astype(float)
    total = recorded.fillna(_final(cells, last, column))
    return total.map(count if column == "update" else number)


def _to_target(records: Records, cells: pd.DataFrame) -> dict[str, pd.Series[str]]:
    """Per target what reaching it cost on the budget's axis, or that the run missed it."""
    found = {}
    for target in records.targets:
        seen = observe(records.runs, records.curves, target, records.budget.axis).loc[cells.index]
        outcome = seen["status"].isin(OUTCOMES)
        words = seen["time"].map(count).where(seen["reached"], "missed").where(outcome, NONE)
        found[f"{AXES[records.budget.axis][1]} to {target.label}"] = words
    return found


def _quartiles(values: Sequence[float]) -> tuple[str, str]:
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return NONE, ""
    low, median, high = quartiles(np.array(known))
    return number(median), f"{number(low)} to {number(high)}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""

"""What the runs of every arm cost, in total and per update."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bdhf.records import AXES, Records
from bdhf.report.ablation.totals import Spread, evaluations, spread_in_words, total
from bdhf.stats.observations.hardware import kinds_of
from bdhf.stats.observations.targets import OUTCOMES
from bdhf.text.formatting import counted, whole

#: Axes whose cost per update is reported.
_PER_UPDATE = ("seconds", "gradient_equivalents")


@dataclass(frozen=True)
class CostRow:
    """What the runs of an arm spent: median and quartiles for every head, as text."""

    arm: str
    runs: str  # with an outcome, of those planned
    cells: tuple[Spread, ...]


def cost_rows(records: Records) -> tuple[tuple[str, ...], tuple[CostRow, ...]]:
    """Heads and rows of the costs of runs with an outcome, without costs that no run recorded."""
    ended = records.runs[records.runs["status"].isin(OUTCOMES)]
    columns = _columns(records, ended)
    rows = []
    for arm in records.arms:
        is_of_arm = ended["arm"] == arm
        planned = int((records.runs["arm"] == arm).sum())
        cells = tuple(
            spread_in_words(values[is_of_arm].tolist(), whole) for values in columns.values()
        )
        rows.append(CostRow(arm, f"{int(is_of_arm.sum())} of {planned}", cells))
    return tuple(columns), tuple(rows)


def cautions(records: Records) -> tuple[str, ...]:
    """Why seconds may not be comparable: several kinds of machines, or shared machines."""
    where = records.environments
    ended = records.runs.loc[records.runs["status"].isin(OUTCOMES), "run_id"]
    kinds = kinds_of(ended, where).nunique()
    most = where["concurrent"].max() if "concurrent" in where else 1
    notes = []
    if kinds > 1:
        notes.append(
            f"Seconds were measured on {kinds} kinds of machines (see Provenance) and cannot be "
            "compared between arms; the other columns can."
        )
    if most > 1:
        notes.append(
            f"Up to {counted(int(most), 'run')} shared a machine at once: seconds depend on what "
            "else ran there."
        )
    return tuple(notes)


def _columns(records: Records, ended: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """The costs of all runs that have ended, by head."""
    _, last = evaluations(records)
    spent = {axis: total(last, ended, column) for axis, (column, _) in AXES.items()}
    updates = spent["updates"].where(spent["updates"] > 0)
    columns = {AXES[axis][1]: values for axis, values in spent.items()}
    columns |= {f"{AXES[axis][1]} per update": spent[axis] / updates for axis in _PER_UPDATE}
    return {head: values for head, values in columns.items() if values.notna().any()}

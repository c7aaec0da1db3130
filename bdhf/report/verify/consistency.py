"""Contradictions within records, which no ablation produces.

All tables refer to runs of the plan. A run that has ended has a spec and files; its row in the
table of runs is the last row of its curve; evaluations are where the spec asks for them; a `done`
run has spent its budget or reached its targets; a `diverged` run met a number that is not finite.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import pandas as pd

from bdhf.records import AXES, FAILED, Records, Status
from bdhf.records.bits import first_unlike
from bdhf.records.columns import CELL
from bdhf.records.disk.checksums import digest
from bdhf.report.embedded.archive import RunFiles
from bdhf.stats.observations.targets import observe_targets

#: Statuses of runs that began: each has a folder with its files.
BEGUN = (Status.DONE, Status.DIVERGED, *FAILED)

#: The reason of a diverged run: the loss at an evaluation, or a value that no curve has.
_REASON = re.compile(r"(.+) is (?:nan|-?inf|not finite) at update (\d+)")
_UNSEEN = ("loss of the batch", "norm of the gradient", "the largest parameter")

_SUM = re.compile(r"[0-9a-f]{64}")
_ROUNDING = 1e-9  # of a budget in epochs, which are samples ÷ size of the training set


def record_contradictions(
    records: Records, files: Mapping[str, RunFiles], names: Collection[str]
) -> list[str]:
    """Every contradiction as text. `names`: the files whose sums each run must have."""
    return [
        *_strangers(records),
        *_last_rows(records.runs, records.curves),
        *_without_files(records.runs, files, names),
        *_shared(records.runs, records.curves),
        *_ends(records),
    ]


def _strangers(records: Records) -> Iterator[str]:
    """Invalid statuses; curves and environments without a run in the table."""
    runs = records.runs.assign(status=records.runs["status"].astype(object).fillna(""))
    rows = runs[[*CELL, "status"]].itertuples(index=False, name=None)
    cells = {(arm, seed): (run_id, status) for arm, seed, run_id, status in rows}
    ended = {run_id for run_id, status in cells.values() if status}
    for (arm, seed), (_, status) in cells.items():
        if status not in ("", *Status):
            yield f"{arm} seed {seed}: {status!r} is not a status of a run"
    curves = records.curves[list(CELL)].drop_duplicates()
    for arm, seed, run_id in curves.itertuples(index=False, name=None):
        of_row, status = cells.get((arm, seed), (run_id, Status.DONE))
        if of_row != run_id:
            yield f"{arm} seed {seed}: it is run {of_row}, but has evaluations of run {run_id}"
        elif status not in BEGUN:
            yield f"{arm} seed {seed}: the run did not begin but has a curve"
    for run_id in records.environments.get("run_id", ()):
        if run_id not in ended:
            yield f"an environment of run {run_id}, but the table has no such run that has ended"


def _last_rows(runs: pd.DataFrame, curves: pd.DataFrame) -> Iterator[str]:
    """The first difference between the table of runs and the last rows of the curves."""
    last = curves.drop_duplicates(["arm", "seed"], keep="last").set_index(["arm", "seed"])
    measured = [name for name in runs if name in last and name not in CELL]
    cells = pd.MultiIndex.from_frame(runs[["arm", "seed"]])
    for arm, seed in last.index.difference(cells):
        yield f"a curve of {arm} seed {seed}, but the table has no such run"
    ends = last.reindex(cells)[measured].reset_index(drop=True)
    unlike = first_unlike(runs[measured].reset_index(drop=True), ends)
    if unlike is not None:
        arm, seed = cells[unlike.row]
        yield (
            f"{arm} seed {seed}: the table of runs has {unlike.column} {unlike.first!r}, the last "
            f"row of its curve {unlike.other!r}"
        )


def _without_files(
    runs: pd.DataFrame, files: Mapping[str, RunFiles], names: Collection[str]
) -> Iterator[str]:
    """Runs that have ended, but whose spec or sums are not in the records."""
    begun = runs[runs["status"].isin([str(status) for status in BEGUN])]
    for run_id, rows in begun.groupby("run_id", sort=False):
        arm, seed, status = rows[["arm", "seed", "status"]].iloc[0]
        where, entry = f"{arm} seed {seed}: run {run_id} is {status}", files.get(str(run_id))
        if entry is None:
            yield f"{where}, but the records have neither its spec nor the sums of its files"
            continue
        lacking = [name for name in names if not _SUM.fullmatch(entry.sha256.get(name, ""))]
        if lacking:
            yield f"{where}, but the records have no sum of {', '.join(lacking)}"
        elif digest(entry.spec.encode()) != entry.sha256["spec.yaml"]:
            yield f"{where}, but its spec does not match its SHA-256"


def _shared(runs: pd.DataFrame, curves: pd.DataFrame) -> Iterator[str]:
    """Cells that share a run but differ in its curve or status."""
    of_cell = dict(list(curves.groupby(["arm", "seed"], sort=False)))
    for run_id, rows in runs[runs["run_id"].duplicated(keep=False)].groupby("run_id", sort=False):
        first, *others = rows[["arm", "seed", "status"]].itertuples(index=False, name=None)
        for cell in others:
            first_curve, curve = (of_cell.get(key[:2], curves.iloc[:0]) for key in (first, cell))
            unlike = first_unlike(first_curve, curve, ignored=CELL)
            if (
                unlike is not None
                or len(first_curve) != len(curve)
                or str(first[2]) != str(cell[2])
            ):
                names = f"{first[0]} seed {first[1]} and {cell[0]} seed {cell[1]}"
                yield f"{names} share run {run_id} but differ in its curve or status"


def _ends(records: Records) -> Iterator[str]:
    """Runs whose curve contradicts their status."""
    reached = _reached(records)
    curves = dict(list(records.curves.groupby(["arm", "seed"], sort=False)))
    columns = ["arm", "seed", "status", "reason"]
    cells = records.runs[columns].itertuples(index=False, name=None)
    for (arm, seed, status, reason), at_target in zip(cells, reached, strict=True):
        curve = curves.get((arm, seed))
        fault = _uneven(records, arm, curve)
        if status == Status.DONE:
            fault = fault or _not_done(records, arm, curve, at_target=at_target)
        if status == Status.DIVERGED:
            fault = fault or _not_diverged(curve, str(reason))
        if fault:
            yield f"{arm} seed {seed}: {fault}"


def _reached(records: Records) -> list[bool]:
    """Whether each cell may have ended at its targets."""
    if not (records.stops_at_target and records.targets) or records.curves.empty:
        return [False] * len(records.runs)
    axis = records.budget.axis
    seen = [
        observe_targets(records.runs, records.curves, target, axis)["reached"].to_numpy(bool)
        for target in records.targets
    ]
    return [bool(all_of_them) for all_of_them in np.all(seen, axis=0)]


def _uneven(records: Records, arm: str, curve: pd.DataFrame | None) -> str:
    """An evaluation at another update than the spec asks for; only the last may be earlier."""
    if curve is None:
        return ""
    every = records.evaluate_every_of(arm)
    updates = curve["update"].to_numpy(float, na_value=np.nan)
    due = np.arange(len(updates)) * float(every)
    early = len(updates) > 1 and due[-1] - every < updates[-1] < due[-1]
    odd = np.flatnonzero(updates[: len(updates) - early] != due[: len(updates) - early])
    if not odd.size:
        return ""
    text = f"evaluation {odd[0]} is at update {updates[odd[0]]:g}"
    return f"{text}, but evaluations are due every {every} updates"


def _not_done(records: Records, arm: str, curve: pd.DataFrame | None, *, at_target: bool) -> str:
    """Why a run cannot be `done`; "" if it can."""
    if curve is None:
        return "it is done but has no curve"
    budget = records.budget_of(arm)
    column, unit = AXES[budget.axis]
    spent = float(curve[column].iloc[-1]) if column in curve else np.nan
    if at_target or spent >= budget.limit * (1 - _ROUNDING):
        return ""
    return (
        f"it is done, but its curve ends at {spent:g} of {budget.limit:g} {unit} and at no target"
    )


def _not_diverged(curve: pd.DataFrame | None, reason: str) -> str:
    """Why a run cannot be `diverged`; "" if it can."""
    if curve is None:
        return "it diverged but has no curve"
    last = curve.iloc[-1]
    match = _REASON.fullmatch(reason)
    losses = [float(last[name]) for name in ("train_loss", "val_loss") if name in curve]
    if not np.isfinite(losses).all() or (match and match[1] in _UNSEEN):
        return ""
    return f"it diverged ({reason}), but all losses of its curve are finite"

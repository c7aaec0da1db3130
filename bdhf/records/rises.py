"""Runs whose loss ended above its initial value: worse than no update at all.

Their status is `done`, because nothing failed; reports must mark them.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bdhf.records.run import Run, read_run
from bdhf.records.schema import Status
from bdhf.text.formatting import short

#: The losses that are checked; the first one that a run has decides.
_LOSSES = ("val_loss", "train_loss")


class Rise(NamedTuple):
    """A loss before the first update, and the higher one at the last evaluation."""

    metric: str
    first: float
    last: float

    def __str__(self) -> str:
        return f"{self.metric} {short(self.first)} -> {short(self.last)}"


def rise_of(curve: pd.DataFrame) -> Rise | None:
    """The rise of a run that ended strictly above its initial loss; None where it did not.

    Also None where a curve does not begin before the first update, or no loss is finite at both
    ends.

    >>> str(rise_of(pd.DataFrame({"update": [0, 9], "val_loss": [2.4, 794.0]})))
    'val_loss 2.4 -> 794'
    """
    rows = curve.sort_values("update", kind="stable")
    if len(rows) < 2 or rows["update"].iloc[0] != 0:
        return None
    for metric in _LOSSES:
        ends = rows.reindex(columns=[metric])[metric].iloc[[0, -1]].to_numpy(float, na_value=np.nan)
        if np.isfinite(ends).all():
            return Rise(metric, *map(float, ends)) if ends[1] > ends[0] else None
    return None


def rises(runs: pd.DataFrame, curves: pd.DataFrame) -> dict[str, Rise]:
    """Run id -> its rise, of the runs that are done; takes the tables of `Records`."""
    if curves.empty:  # no run has ended, and there may be no column either
        return {}
    done = runs.loc[runs["status"] == Status.DONE.value, ["arm", "seed", "run_id"]]
    first = done.drop_duplicates("run_id").drop(columns="run_id")
    of_done = curves.merge(first, on=["arm", "seed"])
    risen = {str(run_id): rise_of(curve) for run_id, curve in of_done.groupby("run_id", sort=False)}
    return {run_id: rise for run_id, rise in risen.items() if rise is not None}


def rises_in(folder: str | Path, run_ids: Collection[str]) -> dict[str, Rise]:
    """Run id -> its rise, of those of these runs of a results folder that are done."""
    risen: dict[str, Rise] = {}
    for run_id in dict.fromkeys(run_ids):
        run = read_run(Path(folder) / "runs" / run_id)
        if isinstance(run, Run) and run.status["status"] == Status.DONE:
            rise = rise_of(run.curve.to_pandas())
            if rise is not None:
                risen[run_id] = rise
    return risen

"""Median and quartiles over seeds of what the solver did, update by update.

A number of CG iterations has no worst value to assign to a run that has ended. So at every update
the quartiles are those of the runs that still train and were measured there. A line ends where
fewer than half of the runs of its arm remain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bdhf.records import Records
from bdhf.stats.observations.targets import OUTCOMES

_COLUMNS = ("metric", "arm", "runs", "x", "low", "median", "high")
_POSITIONS = 160  # points of a line at most: more cannot be seen


def diagnostic_bands(records: Records, metrics: Sequence[str]) -> pd.DataFrame:
    """Quartiles of every arm with measurements of a metric: a row per metric, arm and update.

    Columns: `metric, arm`; `runs`, the runs of the arm with an outcome that measured it;
    `x`, in updates; `low, median, high`, each the k-th smallest value (k = ⌈q n⌉). Values that are
    not finite are left out.
    """
    runs = records.runs[records.runs["status"].isin(OUTCOMES)]
    curves = records.curves.merge(runs[["arm", "seed"]], on=["arm", "seed"])
    parts = []
    for metric in [metric for metric in metrics if metric in curves]:
        value = curves[metric].astype(float)
        seen = curves.assign(value=value)[np.isfinite(value)]
        lines = dict(list(seen.groupby("arm", sort=False)))
        for arm in [arm for arm in records.arms if arm in lines]:
            parts.append(_quartiles(lines[arm]).assign(metric=metric, arm=arm))
    return pd.concat(parts, ignore_index=True)[list(_COLUMNS)] if parts else _empty()


def _quartiles(line: pd.DataFrame) -> pd.DataFrame:
    """Quartiles of an arm at every update with measurements of at least half of its runs."""
    cells = line.pivot(index="update", columns="seed", values="value").sort_index()
    runs, count = cells.shape[1], cells.notna().sum(axis="columns")
    cells = cells[2 * count >= runs]
    chosen = np.linspace(0, len(cells) - 1, min(len(cells), _POSITIONS)).round().astype(int)
    cells = cells.iloc[chosen]
    values = np.sort(cells.to_numpy(float), axis=1)  # (updates, runs), NaN last
    n = (~np.isnan(values)).sum(axis=1)
    ranks = {name: np.ceil(q * n).astype(int) - 1 for name, q in _SHARES.items()}
    quartiles = {name: values[np.arange(len(n)), rank] for name, rank in ranks.items()}
    return pd.DataFrame({"runs": runs, "x": cells.index.to_numpy(float), **quartiles})


_SHARES = {"low": 0.25, "median": 0.5, "high": 0.75}


def _empty() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=object) for name in _COLUMNS})

"""Records and results -> the tables of figures, only for the figures that the spec asks for."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bdhf.records import Records
from bdhf.report.page.drawing import Evidence
from bdhf.stats.result import Result
from bdhf.stats.scaling.scaling import batch_scaling, drawn
from bdhf.stats.summaries.profile import performance_profiles
from bdhf.stats.summaries.ranks import mean_ranks


def gather(records: Records, results: Sequence[Result], survival: pd.DataFrame) -> Evidence:
    """Compute what the figures of an ablation need beyond its results.

    Raises ValueError for a target whose metric the curves do not have.
    """
    if records.curves.empty:
        return Evidence(records, survival, results)
    scales, ranked = records.shows("scaling"), records.shows("ranks")
    ranks = [mean_ranks(records, target) for target in records.targets] if ranked else []
    return Evidence(
        records=records,
        survival=survival,
        results=results,
        profile=performance_profiles(records) if records.shows("profile") else pd.DataFrame(),
        sizes=drawn(records) if scales else pd.DataFrame(),
        scaling=batch_scaling(records) if scales else (),
        ranks=tuple(table for table in ranks if table is not None),
    )

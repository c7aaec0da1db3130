"""All outputs use the same words for the reasons of missing runs."""

import dataclasses

import pytest

from bdhf.records import NOT_RUN, uncounted
from bdhf.report.ablation.pair_rows import pair_rows
from bdhf.report.ablation.tables import runs, statuses
from bdhf.stats.compare import compare, to_table
from bdhf.stats.text.latex import to_latex
from tests.stats.synthetic import synthetic

#: The reasons of `records`, and their words in outputs.
REASONS = {
    "torn: curve.parquet: Parquet magic bytes not found in footer": "torn",
    "foreign: records of version 2, this bdhf reads up to 1: upgrade bdhf": "of a newer bdhf",
    "unreadable: status.json: Permission denied": "unreadable",
    "not run yet": "not run yet",
}


def with_reasons(reasons):
    """Records whose first runs of `block` have no whole run, each for its reason."""
    n = len(reasons)
    records = synthetic({"block": ["planned"] * n + [30] * 6, "full": [60] * (n + 6)})
    table = records.runs.copy()
    table.loc[table.index[:n], "reason"] = reasons
    return dataclasses.replace(records, runs=table)


@pytest.mark.parametrize(("reason", "words"), REASONS.items())
def test_every_kind_of_missing_run_is_named_everywhere(reason, words):
    """In flags and tables, in LaTeX, in the pairs and the runs of a page, and by the records."""
    records = with_reasons([reason, reason])

    (result,) = compare(records)

    told = f"2 of 8 pairs are missing: 2 {words} in block"
    assert result.flags[0] == told
    assert told in to_table([result])["flags"][0]
    assert told in to_latex([result])
    assert [row.candidate.value for row in pair_rows(records)[0][:2]] == [words] * 2
    assert [row.status for row in runs(records).rows[:2]] == [words] * 2
    assert statuses(records) == {"done": 14, words: 2}
    assert f"(14 done, 2 {words})" in repr(records)


def test_kinds_are_counted_apart():
    """Most first, then by name."""
    records = with_reasons([*REASONS, "torn: status.json: Expecting value"])

    assert compare(records)[0].flags[0] == (
        "5 of 11 pairs are missing: 2 torn in block, 1 not run yet in block, "
        "1 of a newer bdhf in block, 1 unreadable in block"
    )


def test_an_empty_reason_is_not_run_yet():
    """Records made by hand may have none."""
    assert {uncounted(reason) for reason in ("", None, float("nan"))} == {NOT_RUN}

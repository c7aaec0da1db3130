"""The table of costs: medians over the runs with an outcome, and warnings on seconds."""

import dataclasses

import numpy as np
import pytest

from bdhf.report.ablation.costs import cautions, cost_rows
from tests.report.synthetic import QUICKSTART, Arm, synthetic_records


def test_costs_are_medians_of_what_the_runs_spent():
    """Each cell is the median over runs of the last evaluation; per update, of their quotient."""
    records = synthetic_records(QUICKSTART, seeds=5, updates=80)
    heads, rows = cost_rows(records)
    last = records.curves[records.curves["arm"] == "adam"].groupby("seed").tail(1)

    cells = {head: row[0] for head, row in zip(heads, rows[0].cells, strict=True)}

    assert heads == ("updates", "epochs", "curvature products", "seconds of training",
                     "seconds of training per update")  # fmt: skip
    for head, values in {
        "updates": last["update"],
        "curvature products": last["products"],
        "seconds of training per update": last["seconds"] / last["update"],
    }.items():
        assert float(cells[head].replace(",", "")) == pytest.approx(values.median(), rel=5e-3)


def test_runs_without_an_outcome_are_counted_and_left_out():
    """The table does not use failed runs, and counts the runs that it uses."""
    arms = {"full_hf": Arm(tau=9.0, status={0: ("error", "boom"), 1: (None, "")})}
    records = synthetic_records(arms, seeds=4, updates=60, comparisons=())
    cut = dataclasses.replace(records, runs=records.runs[records.runs["seed"] > 1])

    (row,), (whole,) = cost_rows(records)[1], cost_rows(cut)[1]

    assert (row.runs, whole.runs) == ("2 of 4", "2 of 2")
    assert row.cells == whole.cells


def test_seconds_are_cautioned_where_machines_differ_or_are_shared():
    """Two kinds of processor and a shared machine are reported, each with its number."""
    records = synthetic_records(QUICKSTART, seeds=2, updates=20)
    mixed = records.environments.copy()
    mixed.loc[0, "cpu"] = "another"
    shared = records.environments.assign(concurrent=[np.nan, *[3] * (len(mixed) - 1)])

    (kinds,) = cautions(dataclasses.replace(records, environments=mixed))
    (company,) = cautions(dataclasses.replace(records, environments=shared))

    assert cautions(records) == ()
    assert "2 kinds of machines" in kinds
    assert "3 runs" in company

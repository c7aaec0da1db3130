"""Records that contradict themselves are reported, and those of honest runs are not."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bdhf.records import Budget
from bdhf.records.disk.checksums import digest
from bdhf.report.embedded.archive import ARCHIVED_FILES, RunFiles
from bdhf.report.verify.consistency import record_contradictions
from tests.forgeries import with_last_rows
from tests.messages import naming
from tests.report.synthetic import Arm, synthetic_records

SPEC = "seed: 0\n"
ARMS = {
    "hits": Arm(tau=8.0, floor=0.005),
    "misses": Arm(tau=400.0),
    "ends": Arm(tau=30.0, status={
        0: ("diverged", "val_loss is nan at update 14"),
        1: ("error", "E: no"),
        2: (None, "not run yet"),
    }),
}  # fmt: skip


def files_of(records, **sums):
    """Files as in the folders of runs that have ended, changed."""
    whole = dict.fromkeys(ARCHIVED_FILES, digest(b"")) | {"spec.yaml": digest(SPEC.encode())} | sums
    ended = records.runs.loc[records.runs["status"].notna(), "run_id"]
    return {run_id: RunFiles(spec=SPEC, sha256=whole) for run_id in ended}


@pytest.fixture(scope="module")
def records():
    """Runs that hit, that miss, that diverge, that fail, and one that has not run."""
    return replace(
        synthetic_records(ARMS, seeds=3, updates=60, comparisons=()), stops_at_target=True
    )


def told(records, files=None):
    """The contradictions of records."""
    return record_contradictions(
        records, files_of(records) if files is None else files, ARCHIVED_FILES
    )


def changed(records, arm, seed, change):
    """Change a curve and its row in the table of runs."""
    here = (records.curves["arm"] == arm) & (records.curves["seed"] == seed)
    parts = [records.curves[~here], change(records.curves[here])]
    return with_last_rows(replace(records, curves=pd.concat(parts, ignore_index=True)).in_order())


def ended(records, arm, seed, status, reason):
    """Change the end of a run."""
    runs = records.runs.copy()
    runs.loc[(runs["arm"] == arm) & (runs["seed"] == seed), ["status", "reason"]] = status, reason
    return replace(records, runs=runs)


def test_honest_records_are_not_contradicted(records):
    """However their runs ended."""
    assert set(records.runs["status"].dropna()) == {"done", "diverged", "error"}
    assert told(records) == []


@pytest.mark.parametrize(
    ("budget", "column"),
    [
        (Budget(updates=60), "update"),
        (Budget(epochs=24.0), "epoch"),
        (Budget(products=1200.0), "products"),
        (Budget(seconds=1.0), "seconds"),
    ],
    ids=["updates", "epochs", "products", "seconds"],
)
def test_a_done_run_has_spent_its_budget_on_whatever_axis(records, budget, column):
    """Up to rounding; for a run that ends earlier, the line has what it spent."""
    budgets = dict.fromkeys(records.arms, budget)
    limit = budget.limit * (1 - 1e-12)

    def spent(rows, share):
        return rows.assign(**{column: np.linspace(0, limit * share, len(rows))})

    whole = cut = replace(records, budgets=budgets, stops_at_target=False)
    for arm, seed in [("hits", s) for s in range(3)] + [("misses", s) for s in range(3)]:
        if column != "update":
            whole = changed(whole, arm, seed, lambda rows: spent(rows, 1.0))
            cut = changed(cut, arm, seed, lambda rows: spent(rows, 0.9))
        else:
            cut = changed(cut, arm, seed, lambda rows: rows.iloc[:-1])
            whole = changed(whole, arm, seed, lambda rows: rows)
    if column == "update":
        whole = replace(whole, stops_at_target=True)

    assert told(whole) == []
    lines = told(cut)
    assert len(lines) == 6
    assert all(f" of {budget.limit:g} " in line for line in lines)


def test_a_done_run_that_may_stop_at_its_targets_has_reached_them_all(records):
    """Otherwise its budget must be spent."""
    harder = tuple(t.model_copy(update={"below": 1e-9}) for t in records.targets)

    lines = told(replace(records, targets=(*records.targets, *harder)))

    assert len(lines) == 3
    assert all(line.startswith("hits seed ") for line in lines)


@pytest.mark.parametrize(
    ("reason", "count"),
    [
        ("val_loss is nan at update 60", 1),
        ("it was bad", 1),
        ("", 1),
        ("loss of the batch is nan at update 61", 0),
        ("norm of the gradient is inf at update 61", 0),
        ("the largest parameter is inf at update 60", 0),
    ],
)
def test_a_diverged_run_with_finite_losses_needs_another_reason(records, reason, count):
    """The reason may be a batch, a gradient or a parameter, which a curve does not contain."""
    lines = told(ended(records, "misses", 0, "diverged", reason))

    assert len(lines) == count
    assert all(line.startswith("misses seed 0: ") and reason in line for line in lines)


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda rows: rows[rows["update"] != 4], ("evaluation 2", "update 6", "2 updates")),
        (lambda rows: rows[rows["update"] != 0], ("evaluation 0", "update 2")),
        (lambda rows: rows.iloc[::2], ("evaluation 1", "update 4")),
        (lambda rows: rows.iloc[:0], ("done", "no curve")),
    ],
    ids=["a gap", "no first", "every second", "none"],
)
def test_evaluations_that_were_removed_are_reported(records, change, facts):
    """A curve begins at 0 and has every evaluation that the spec asks for."""
    lines = told(changed(records, "misses", 1, change))

    assert [line for line in lines if re.match(naming("misses seed 1", *facts), line)]


def test_a_last_evaluation_may_come_sooner(records):
    """A budget may end between two of them."""
    short = replace(records, budgets=dict.fromkeys(records.arms, Budget(updates=59)))

    def sooner(rows):
        return rows.assign(update=rows["update"].where(rows["update"] < 60, 59))

    assert told(changed(short, "misses", 1, sooner)) == []


def test_a_run_that_has_ended_carries_its_spec_and_sums(records):
    """Whether it is done or failed; a run that has not run has neither."""
    files = files_of(records)
    for arm, seed in (("hits", 0), ("ends", 0), ("ends", 1)):
        runs = records.runs
        run_id = runs.loc[(runs["arm"] == arm) & (runs["seed"] == seed), "run_id"].iloc[0]
        (line,) = told(records, {k: v for k, v in files.items() if k != run_id})
        assert line.startswith(f"{arm} seed {seed}: run {run_id} is ")


@pytest.mark.parametrize("name", ARCHIVED_FILES)
def test_every_run_has_a_valid_sum_of_every_file(records, name):
    """A text that is not a SHA-256 is reported for every run."""
    lines = told(records, files_of(records, **{name: "none"}))

    assert len(lines) == 8
    assert all(line.endswith(name) for line in lines)


def test_a_spec_that_does_not_match_its_sum_is_reported(records):
    """Of every run."""
    lines = told(records, files_of(records, **{"spec.yaml": digest(b"other")}))

    assert len(lines) == 8
    assert all("SHA-256" in line for line in lines)


def test_cells_that_share_a_run_share_its_curve_and_end(records):
    """Otherwise only one of them could match the run."""
    shared = records.runs["run_id"].where(records.runs["arm"] != "misses", "a1")
    ids = dict(
        zip(zip(records.runs["arm"], records.runs["seed"], strict=True), shared, strict=True)
    )
    cells = zip(records.curves["arm"], records.curves["seed"], strict=True)
    twins = replace(
        records,
        runs=records.runs.assign(run_id=shared),
        curves=records.curves.assign(run_id=[ids[cell] for cell in cells]),
        environments=records.environments.iloc[:0],
    )

    lines = told(twins)

    assert len(lines) == 2
    for seed, line in enumerate(lines, start=1):
        assert re.match(naming("misses seed 0", f"misses seed {seed}", "a1"), line)


def test_an_invalid_status_is_reported(records):
    """An invented status removes a run from every count."""
    lines = told(ended(records, "hits", 0, "withdrawn", "by its author"))

    assert any(line.startswith("hits seed 0: 'withdrawn' ") for line in lines)


def test_evaluations_of_another_run_are_reported(records):
    """A lookup by the run of the table would miss them."""

    def with_another(rows):
        more = rows.tail(1).assign(update=rows["update"].max() + 1, run_id="f" * 16)
        return pd.concat([rows, more], ignore_index=True)

    lines = told(changed(records, "misses", 1, with_another))

    assert any(re.match(naming("misses seed 1", "f" * 16), line) for line in lines)


@pytest.mark.parametrize("status", [None, "skipped"])
def test_a_run_that_was_not_begun_has_no_curve(records, status):
    """Otherwise the page shows it and no check reads it."""
    lines = told(ended(records, "hits", 0, status, "not run yet"))

    assert any(re.match(naming("hits seed 0", "curve"), line) for line in lines)


def test_an_environment_is_that_of_a_run(records):
    """The page would count any other environment."""
    more = records.environments.iloc[[0]].assign(run_id="f" * 16, cpu="Z80")
    rows = pd.concat([records.environments, more], ignore_index=True)

    (line,) = told(replace(records, environments=rows))

    assert re.match(naming("environment", "f" * 16), line)

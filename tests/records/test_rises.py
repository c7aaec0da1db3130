"""Runs that are done and ended above their initial loss."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pandas as pd
import pytest

from bdhf.cli.planned import say_comparisons, say_failed, say_left
from bdhf.cli.results import say_risen
from bdhf.experiments.ablation import Ablation
from bdhf.experiments.run.execute import Outcome
from bdhf.experiments.spec.schema import Retry
from bdhf.experiments.storage.show import run_detail
from bdhf.experiments.storage.status import ablation_status
from bdhf.records import CURVE_COLUMNS, Status, rise_of
from bdhf.report.ablation import tables
from bdhf.stats.compare import compare
from tests.experiments.specs import SMALL
from tests.experiments.synthetic import begun, write
from tests.stats.synthetic import BLOCK_VS_FULL, TARGET, with_losses

NAN = math.nan

#: Losses at the updates 0, 1, ... -> the rise, in words.
RISES = {
    "blown up": ({"val_loss": [2.4, 1.0, 794.0]}, "val_loss 2.4 -> 794"),
    "by a little": ({"val_loss": [2.4, 1.0, 2.5]}, "val_loss 2.4 -> 2.5"),
    "fallen": ({"val_loss": [2.4, 9.0, 2.0]}, None),
    "equal": ({"val_loss": [2.4, 9.0, 2.4]}, None),
    "no validation": ({"val_loss": [NAN] * 2, "train_loss": [1.0, 3.0]}, "train_loss 1 -> 3"),
    "training alone": ({"train_loss": [1.0, 3.0]}, "train_loss 1 -> 3"),
    "validation counts": ({"val_loss": [2.0, 1.0], "train_loss": [1.0, 3.0]}, None),
    "no end": ({"val_loss": [2.4, math.inf]}, None),
    "nothing made": ({"val_loss": [2.4]}, None),
    "empty": ({"val_loss": []}, None),
}


@pytest.mark.parametrize("case", RISES)
def test_a_run_rises_where_its_last_loss_is_above_its_first(case):
    """Strictly above, on the validation loss, or the training loss without one."""
    losses, words = RISES[case]
    curve = pd.DataFrame(losses)
    rise = rise_of(curve.assign(update=range(len(curve))))

    assert (None if rise is None else str(rise)) == words


def test_a_curve_that_starts_after_the_first_update_has_no_rise():
    """Its initial loss is unknown."""
    assert rise_of(pd.DataFrame({"update": [1, 2], "val_loss": [1.0, 2.0]})) is None


@pytest.mark.parametrize("estimand", ["final_loss", "best_loss", "updates_to_target"])
def test_a_comparison_flags_each_arm_whose_runs_rose(estimand):
    """For losses and for targets: the number of runs, and the worst."""
    records = with_losses({"block": [[2.4, 794.0], [2.4, 3.0]], "full": [[2.4, 1.0], [2.4, 2.4]]})
    if estimand == "updates_to_target":
        records = replace(records, comparisons=(BLOCK_VS_FULL,), targets=(TARGET,))
    (result,) = compare(records)

    risen = [flag for flag in result.flags if "before the first update" in flag]
    assert risen == [
        "2 of 2 runs of block ended above the loss before the first update (at worst val_loss "
        "2.4 -> 794)"
    ]


def test_the_table_of_runs_has_it_in_the_reason():
    """The status stays as it is."""
    records = with_losses({"block": [[2.4, 794.0]], "full": [[2.4, 1.0]]})
    risen, fallen = tables.runs(records).rows

    assert risen.status == fallen.status == "done"
    assert risen.reason.line.endswith(" val_loss 2.4 -> 794")
    assert fallen.reason.line == ""


@pytest.fixture
def made(tmp_path):
    """A folder with two runs that are done, of which the first rose, and one that diverged."""
    store, cells = begun(tmp_path / "out")
    (tmp_path / "spec.yaml").write_text(SMALL)
    rows = [dict.fromkeys(CURVE_COLUMNS, 0.0) | {"val_loss": loss} for loss in (2.4, 1.0)]
    curve = pd.DataFrame(rows).assign(update=[0, 1])
    for cell, losses, status in zip(
        cells, ([2.4, 794.0], [2.4, 1.0], [2.4, 9.0]), (Status.DONE, Status.DONE, Status.DIVERGED)
    , strict=False):  # fmt: skip
        outcome = Outcome(status, "", curve.assign(val_loss=losses))
        store.write(cell.run, outcome, {}, {})
    return store, cells


def test_status_and_show_report_it(made):
    """By run, in words; not for a diverged run, whose status is more informative."""
    store, cells = made

    assert ablation_status(store.folder).risen == {cells[0].run_id: "val_loss 2.4 -> 794"}
    for cell, words in zip(cells, ("val_loss 2.4 -> 794", None, None), strict=False):
        folder = store.runs / cell.run_id
        head = run_detail(folder)[str(folder)]
        assert head.get("ended above its start") == words


@pytest.mark.parametrize(("risen", "lines"), [(10, 10), (12, 11)])
def test_more_than_ten_are_counted_in_the_last_line(risen, lines, capsys):
    """Ten have a line each, the rest share one."""
    ids = [f"{number:016x}" for number in range(risen)]

    say_risen(dict.fromkeys(ids, "val_loss 2.4 -> 794"), dict.fromkeys(ids, "adam seed 0"))

    told = capsys.readouterr().out.splitlines()
    assert len(told) == lines
    assert sum("val_loss 2.4 -> 794" in line for line in told) == 10
    assert ("`bdhf status --json`" in told[-1]) == (risen > 10)


def test_the_plan_counts_each_way_to_end_apart(tmp_path, capsys):
    """Failed runs are not done, and a line reports whether they are repeated."""
    store, cells = begun(tmp_path / "out")
    (tmp_path / "spec.yaml").write_text(SMALL)
    for cell, status in zip(cells, (Status.DONE, Status.DIVERGED, Status.ERROR), strict=False):
        write(store, cell, status)
    ablation = Ablation.open(tmp_path / "spec.yaml", tmp_path / "out")

    kept = ablation.preview(cells, ablation.left(cells))
    again = ablation.preview(cells, ablation.left(cells, "error"))
    for preview in (kept, again):
        say_left(preview, preview.left)
        say_failed(preview, Retry())
    lines = capsys.readouterr().out.splitlines()

    assert dict(kept.kept) == {"done": 1, "diverged": 1, "error": 1}
    assert dict(again.kept) == {"done": 1, "diverged": 1}
    assert kept.to_json()["statuses"] == {"done": 1, "diverged": 1, "error": 1}
    assert again.to_json()["again"] == {"error": 1}
    facts = [re.findall(r"\d+|done|diverged|error", line.split(" -> ")[0]) for line in lines]
    assert facts[0] == ["6", "1", "done", "1", "diverged", "1", "error", "3"]
    assert facts[1] == ["1", "error", "error", "0", "error"]  # of the run, the spec and --retry
    assert facts[2] == ["6", "1", "done", "1", "diverged", "4"]
    assert facts[3] == ["1", "error"]
    assert "retry.error" in lines[1]
    assert "`--retry error`" in lines[1]


def test_a_run_that_is_done_and_made_again_has_the_reason(tmp_path, capsys):
    """Only changed code of its own parts makes it stale; no retry does."""
    store, cells = begun(tmp_path / "out")
    (tmp_path / "spec.yaml").write_text(SMALL)
    write(store, cells[0], Status.DONE)
    ablation = Ablation.open(tmp_path / "spec.yaml", tmp_path / "out")

    left = ablation.left(cells) | {cells[0].run_id: cells[0].run}
    say_failed(ablation.preview(cells, left), Retry())

    (line,) = capsys.readouterr().out.splitlines()
    assert re.findall(r"\d+|\bdone\b", line) == ["1", "done"]


def test_a_plan_names_what_is_compared_as_its_results_do(tmp_path, capsys):
    """Units in words, without keys of a spec."""
    (tmp_path / "spec.yaml").write_text(SMALL)
    settings = ("compare.0.estimand=gradient_equivalents_to_target",)
    ablation = Ablation.open(tmp_path / "spec.yaml", tmp_path / "out", settings=settings)
    cells = ablation.cells

    say_comparisons(ablation.preview(cells, ablation.left(cells)))

    assert "full_hf, gradient equivalents to val_loss ≤ 0.08" in capsys.readouterr().out

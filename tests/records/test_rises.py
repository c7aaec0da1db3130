"""Runs that are done, and ended above the loss that they began with."""

from __future__ import annotations

import math
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
    """Beyond equality, on the validation loss or the training loss where there is none."""
    losses, words = RISES[case]
    curve = pd.DataFrame(losses)
    rise = rise_of(curve.assign(update=range(len(curve))))

    assert (None if rise is None else str(rise)) == words


def test_a_curve_that_does_not_begin_before_the_first_update_says_nothing():
    """What it began with is not known."""
    assert rise_of(pd.DataFrame({"update": [1, 2], "val_loss": [1.0, 2.0]})) is None


@pytest.mark.parametrize("estimand", ["final_loss", "best_loss", "updates_to_target"])
def test_a_comparison_flags_each_arm_whose_runs_rose(estimand):
    """For losses and for targets: how many, and the worst."""
    records = with_losses({"block": [[2.4, 794.0], [2.4, 3.0]], "full": [[2.4, 1.0], [2.4, 2.4]]})
    if estimand == "updates_to_target":
        records = replace(records, comparisons=(BLOCK_VS_FULL,), targets=(TARGET,))
    (result,) = compare(records)

    risen = [flag for flag in result.flags if "before the first update" in flag]
    assert risen == [
        "2 of 2 runs of block ended above the loss before the first update (at worst val_loss "
        "2.4 -> 794)"
    ]


def test_the_table_of_runs_says_it_beside_the_reason():
    """The status stays as it is."""
    records = with_losses({"block": [[2.4, 794.0]], "full": [[2.4, 1.0]]})
    risen, fallen = tables.runs(records).rows

    assert risen.status == fallen.status == "done"
    assert risen.reason.line.endswith("ended above its start: val_loss 2.4 -> 794")
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


def test_status_and_show_tell_of_it(made):
    """By run, in words; of a diverged run its status says more."""
    store, cells = made

    assert ablation_status(store.folder).risen == {cells[0].run_id: "val_loss 2.4 -> 794"}
    for cell, words in zip(cells, ("val_loss 2.4 -> 794", None, None), strict=False):
        folder = store.runs / cell.run_id
        head = run_detail(folder)[str(folder)]
        assert head.get("ended above its start") == words


@pytest.mark.parametrize(("risen", "lines"), [(10, 10), (12, 11)])
def test_many_are_counted_behind_the_first(risen, lines, capsys):
    """Ten are told one by one, so that they bury no verdict."""
    ids = [f"{number:016x}" for number in range(risen)]

    say_risen(dict.fromkeys(ids, "val_loss 2.4 -> 794"), dict.fromkeys(ids, "adam seed 0"))

    told = capsys.readouterr().out.splitlines()
    assert len(told) == lines
    assert (told[-1] == "and 2 more: the report and `bdhf status --json` have all") == (risen > 10)


def test_the_plan_counts_each_way_to_end_apart(tmp_path, capsys):
    """What failed is not done, and a line says what becomes of it."""
    store, cells = begun(tmp_path / "out")
    (tmp_path / "spec.yaml").write_text(SMALL)
    for cell, status in zip(cells, (Status.DONE, Status.DIVERGED, Status.ERROR), strict=False):
        write(store, cell, status)
    ablation = Ablation.open(tmp_path / "spec.yaml", tmp_path / "out")

    kept = ablation.outline(cells, ablation.left(cells))
    again = ablation.outline(cells, ablation.left(cells, "error"))
    for outline in (kept, again):
        say_left(outline, outline.left)
        say_failed(outline, Retry())
    lines = capsys.readouterr().out.splitlines()

    assert dict(kept.kept) == {"done": 1, "diverged": 1, "error": 1}
    assert dict(again.kept) == {"done": 1, "diverged": 1}
    assert kept.to_json()["statuses"] == {"done": 1, "diverged": 1, "error": 1}
    assert again.to_json()["again"] == {"error": 1}
    assert [line.split(" -> ")[0] for line in lines] == [
        "small: 6 runs, 1 done, 1 diverged, 1 error, 3 to do",
        "1 run ended as error and stays so (retry.error of the spec: 0); `bdhf run` with "
        "`--retry error` tries again",
        "small: 6 runs, 1 done, 1 diverged, 4 to do",
        "1 run of those to do ended as error before: once more",
    ]


def test_a_run_that_is_done_and_made_again_has_the_reason(tmp_path, capsys):
    """Only other code of its own parts makes it stale; no retry does."""
    store, cells = begun(tmp_path / "out")
    (tmp_path / "spec.yaml").write_text(SMALL)
    write(store, cells[0], Status.DONE)
    ablation = Ablation.open(tmp_path / "spec.yaml", tmp_path / "out")

    left = ablation.left(cells) | {cells[0].run_id: cells[0].run}
    say_failed(ablation.outline(cells, left), Retry())

    assert capsys.readouterr().out == (
        "1 run of those to do ended as done before with other code of an own part: once more\n"
    )


def test_a_plan_names_what_is_compared_as_its_results_do(tmp_path, capsys):
    """Units in words, with no key of a spec among them."""
    (tmp_path / "spec.yaml").write_text(SMALL)
    settings = ("compare.0.estimand=gradient_equivalents_to_target",)
    ablation = Ablation.open(tmp_path / "spec.yaml", tmp_path / "out", settings=settings)
    cells = ablation.cells

    say_comparisons(ablation.outline(cells, ablation.left(cells)))

    assert "full_hf, gradient equivalents to val_loss ≤ 0.08" in capsys.readouterr().out

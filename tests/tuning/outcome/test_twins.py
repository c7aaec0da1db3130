"""Arms that become equal or different by tuning, and their comparisons."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from bdhf.cli.tune import _warn_of_twins
from bdhf.experiments.ablation import Ablation
from bdhf.records import Comparison, load_study
from bdhf.report.study.held_out import final_verdicts, hold_out
from bdhf.report.study.render import evidence_of, study_page
from bdhf.stats.caveats.twins import not_compared
from bdhf.stats.result import Verdict
from bdhf.tuning.outcome.collect import collect_study
from bdhf.tuning.outcome.held_out import held_out
from bdhf.tuning.outcome.tuned_spec import write_tuned
from bdhf.tuning.storage.storage import StudyLocation
from bdhf.tuning.study.study import Study
from tests.messages import naming
from tests.report.synthetic_held_out import held_out_records, save_study
from tests.report.synthetic_study import synthetic_study
from tests.tuning.synthetic import quick, study, worked

__all__ = ["quick"]
pytestmark = pytest.mark.usefixtures("quick")

ONE, GRID = ("trials: 8", "trials: 1"), ("seeds: {count: 6}", "grid: {batch.gradient: [100, 200]}\n"
                                         "seeds: {count: 6}")  # fmt: skip
#: A second Adam with the settings of the first, which the study tunes as well.
AGAIN = (
    ("  adam: {type", "  again: {type: torch.Adam, lr: 3.0e-3}\n  adam: {type"),
    ("  adam: {lr", "  again: {lr: {log: [1.0e-3, 0.3]}}\n  adam: {lr"),
    ("compare:\n", "compare:\n  - {name: again, candidate: again, baseline: adam, margin: 1.1}\n"),
)


def begun(home: Path, *changes: tuple[str, str]) -> tuple[Study, Ablation]:
    """A finished study, and the ablation that compares its settings."""
    of = study(home, *changes)
    worked(of, home / "out")
    return of, held_out(of, collect_study(of, StudyLocation(home / "out")), home / "out")


def test_an_arm_whose_default_was_not_beaten_is_not_held_against_itself(tmp_path: Path) -> None:
    """The entry is omitted from the spec; a comment names it, and the spec can be run."""
    of, ablation = begun(tmp_path, ONE)
    text = (tmp_path / "out" / "held_out.yaml").read_text()
    comments = [line for line in text.splitlines() if line.startswith("# ")]

    assert [entry.name for entry in ablation.plan.comparisons] == ["hf vs adam, tuned"]
    for name in ("hf", "adam"):
        facts = naming(f"{name}.tuned", f"{name}.default", f"{name}: tuned against default")
        assert [line for line in comments if re.search(facts, line)], comments
    assert Ablation.open(tmp_path / "out" / "held_out.yaml", tmp_path / "x").plan == ablation.plan
    assert of.plan.comparisons


def test_arms_that_are_one_before_tuning_can_be_distinguished_by_it(tmp_path: Path) -> None:
    """A study may tune two arms that are equal in the ablation, where they are not compared."""
    of, ablation = begun(tmp_path, ("trials: 8", "trials: 3"), *AGAIN)
    best = {arm.label: arm.settings for arm in load_study(tmp_path / "out").study.arms}

    assert [entry.name for entry in of.plan.twins] == ["again"]
    assert best["again"] != best["adam"]
    assert "again, tuned" in [entry.name for entry in ablation.plan.comparisons]
    assert "again" in [e.name for e in load_study(tmp_path / "out").study.comparisons]


def test_arms_that_tuning_leaves_alike_are_reported_on_the_page_and_at_the_spec(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No comparison on held-out seeds, and a warning about the tuned spec."""
    of, ablation = begun(tmp_path, ONE, *AGAIN)
    record = load_study(tmp_path / "out").study

    write_tuned(of, record, tmp_path / "tuned.yaml")
    _warn_of_twins(tmp_path / "tuned.yaml")

    assert "again, tuned" not in [entry.name for entry in ablation.plan.comparisons]
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(naming("compare.0:", "again", "adam"), said)


def test_a_cell_of_a_grid_that_tuning_leaves_alike_is_left_out(tmp_path: Path) -> None:
    """The cells of both batch sizes are twins: the whole entry is omitted, the others remain."""
    _, ablation = begun(tmp_path, ONE, GRID, *AGAIN)

    names = [entry.name for entry in ablation.plan.comparisons]
    assert names == ["hf vs adam, tuned gradient=100", "hf vs adam, tuned gradient=200"]


def test_the_page_of_a_study_says_which_arms_were_tuned_alike(tmp_path: Path) -> None:
    """In the section of held-out seeds; their verdict is undecided."""
    made = synthetic_study()
    first, other, *_ = made.study.arms
    entry = Comparison(name="twins", candidate=first.label, baseline=other.label)
    alike = other.model_copy(
        update={name: getattr(first, name)
                for name in ("optimizer", "gradient_batch", "curvature_batch", "budget")}
    )  # fmt: skip
    arms = (first, alike, *made.study.arms[2:])
    records = dataclasses.replace(
        made, study=made.study.model_copy(update={"arms": arms, "comparisons": (entry,)})
    )
    saved = load_study(save_study(records, tmp_path, held_out_records(made)))
    held = hold_out(saved)
    assert held is not None

    page = study_page(evidence_of(saved, held), held)

    assert f"<p>{not_compared([entry])[0]}.</p>" in page
    assert final_verdicts(saved, held.results) == {"twins": Verdict.UNDECIDED}
    assert final_verdicts(saved, ()) == {}

"""The specs that a study writes: the tuned spec, and the comparison on held-out seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from bdhf.experiments.ablation import Ablation
from bdhf.experiments.plan.expand import expand
from bdhf.experiments.spec.load import load_spec
from bdhf.records import InputError, Tuning, read_tuning
from bdhf.tuning.outcome.collect import collect_study
from bdhf.tuning.outcome.held_out import count_tests, held_out
from bdhf.tuning.outcome.tuned_spec import _value, write_tuned
from bdhf.tuning.storage.storage import StudyLocation
from bdhf.tuning.study.study import Study
from tests.messages import naming
from tests.tuning.synthetic import quick, study, worked

__all__ = ["quick"]
pytestmark = pytest.mark.usefixtures("quick")

GRID = ("seeds: {count: 6}", "grid: {batch.gradient: [100, 200]}\nseeds: {count: 6}")
FEW = ("trials: 8", "trials: 3")
SETTINGS = (
    "grid: {batch.gradient: [100, 200]}",
    "grid: {batch.gradient: [100, 200]}\nsettings:\n  - at: {batch.gradient: 100}\n"
    "    set: {budget.updates: 60, arms.adam.lr: 1.0e-3}",
)

SEEDS, SPACES = "seeds: {count: 6}", "spaces:"
SGD = ("  adam: {type", "  sgd: {type: torch.SGD, lr: 0.1}\n  adam: {type")
EXCLUDED = (
    "grid: {batch.gradient: [100, 200]}",
    "grid: {batch.gradient: [100, 200]}\nexclude:\n  - {arm: [sgd, adam], batch.gradient: 100}",
)
UNION = (
    SEEDS,
    "grid: [{batch.gradient: [100], batch.curvature: [25]}, {batch.gradient: [100, 200]}]\n"
    + SEEDS,
)
#: An axis that has its default in one grid of a union.
NO_CURVATURE = ("batch: {gradient: 200, curvature: 50}", "batch: {gradient: 200}")


def tuned_study(home: Path, *changes: tuple[str, str]) -> tuple[Study, Tuning]:
    """A finished study and its record."""
    of = study(home, *changes)
    worked(of, home / "out")
    return of, collect_study(of, StudyLocation(home / "out"))


@pytest.mark.parametrize("changes", [(FEW,), (FEW, GRID), (FEW, GRID, SETTINGS)])
def test_a_tuned_spec_has_the_best_settings(
    tmp_path: Path, changes: tuple[tuple[str, str], ...]
) -> None:
    """Every arm at every batch size has the settings of its best trial; all else is unchanged."""
    of, record = tuned_study(tmp_path, *changes)
    file = tmp_path / "tuned" / "small.yaml"

    write_tuned(of, record, file)

    tuned = {cell.arm: cell.run for cell in expand(load_spec(file)[0]).cells}
    before = {cell.arm: cell.run for cell in of.plan.cells}
    assert set(tuned) == {arm.label for arm in record.arms}
    for arm in record.arms:
        run = tuned[arm.label]
        assert run.optimizer == arm.optimizer
        same = run.model_copy(update={"optimizer": before[arm.label].optimizer})
        assert same == before[arm.label].model_copy(update={"seed": run.seed})
    assert read_tuning(tmp_path / "tuned" / "small.tuning.json") == record


def test_a_comment_beside_every_value_names_study_and_trial(tmp_path: Path) -> None:
    """The comments of the tuned spec give the origin of each value."""
    of, record = tuned_study(tmp_path, FEW, GRID)
    file = tmp_path / "tuned.yaml"

    write_tuned(of, record, file)

    lines = [line for line in file.read_text().splitlines() if line.strip().startswith("arms.")]
    values = tuple(_value(arm, record) for arm in record.arms)
    assert len(lines) == sum(len(arm.settings) for arm in record.arms)
    for line in lines:
        assert "# small, trial " in line
        assert line.endswith(values), line
    assert "tuned_from: studies/small" in file.read_text()


def test_a_comment_distinguishes_a_failure_from_a_miss(tmp_path: Path) -> None:
    """The comment distinguishes an arm whose trials all diverged from one that always missed."""
    diverges = ("{lr: {log: [1.0e-4, 1.0]}}", "{lr: {log: [0.6, 2.0]}}")
    of, record = tuned_study(tmp_path, ("trials: 8", "trials: 1"), diverges, ("3.0e-3", "0.9"))
    file = tmp_path / "tuned.yaml"

    write_tuned(of, record, file)

    assert "# small, trial 0: every trial failed" in file.read_text()


def test_what_the_study_sets_is_in_the_tuned_spec(tmp_path: Path) -> None:
    """The tuned spec contains the values of `set`, since the arms were tuned with them."""
    values = "set: {budget.updates: 30, targets.0.below: 0.2}\ntrials: 3"
    of, record = tuned_study(tmp_path, ("trials: 8", values))
    file = tmp_path / "tuned.yaml"

    write_tuned(of, record, file)

    spec = load_spec(file)[0][0].spec
    assert (spec.budget.updates, spec.targets[0].below) == (30, 0.2)


@pytest.mark.parametrize(
    ("values", "base"),
    [
        ("arms.adam.eps: 1.0e-5, arms.hf.solver.max_iters: 7, compare: null", (SGD,)),
        ("arms.adam: {type: torch.Adam, lr: 1.0e-3}, arms.sgd: null", (SGD,)),
        ("arms.adam.eps: 1.0e-5, grid: {batch.curvature: [25, 50]}", (SGD, GRID)),
    ],
)
def test_whatever_a_study_sets_its_tuned_spec_has_the_runs_that_were_tuned(
    tmp_path: Path, values: str, base: tuple[tuple[str, str], ...]
) -> None:
    """Arms that are changed, replaced or removed, and grids, which an include cannot remove."""
    of, record = tuned_study(tmp_path, FEW, *base, (SPACES, f"set: {{{values}}}\n{SPACES}"))
    file = tmp_path / "tuned.yaml"

    write_tuned(of, record, file)

    tuned = {cell.arm: cell.run for cell in expand(load_spec(file)[0]).cells}
    best = {arm.label: arm.optimizer for arm in record.arms}
    before = {cell.arm: cell.run for cell in of.plan.cells}
    assert set(tuned) == set(before)
    for label, run in before.items():
        same = run.model_copy(update={"optimizer": best.get(label, run.optimizer)})
        assert tuned[label] == same


def test_nothing_is_written_of_an_arm_without_a_completed_trial(tmp_path: Path) -> None:
    """After any failure the previous tuned spec remains."""
    of, record = tuned_study(tmp_path, FEW)
    file = tmp_path / "tuned.yaml"
    file.write_text("before")
    hopeless = record.arms[0].model_copy(update={"best": None})

    with pytest.raises(InputError, match=naming(file, "adam")):
        write_tuned(of, record.model_copy(update={"arms": (hopeless,)}), file)
    wrong = record.arms[0].model_copy(update={"optimizer": {"type": "torch.SGD"}})
    with pytest.raises(InputError, match=naming(file, "adam", f"trial {wrong.best}")):
        write_tuned(of, record.model_copy(update={"arms": (wrong, *record.arms[1:])}), file)

    assert file.read_text() == "before"


@pytest.mark.parametrize("changes", [(FEW,), (FEW, GRID), (FEW, GRID, SETTINGS)])
def test_the_best_settings_are_held_against_those_of_the_spec(
    tmp_path: Path, changes: tuple[tuple[str, str], ...]
) -> None:
    """On the seeds of the ablation, each tuned arm is compared with its default, cell by cell."""
    of, record = tuned_study(tmp_path, *changes)

    ablation = held_out(of, record, tmp_path / "out")

    runs = {(cell.arm, cell.seed): cell.run for cell in ablation.cells}
    own = {(cell.arm, cell.seed): cell.run for cell in of.plan.cells}
    for arm in record.arms:
        rest = arm.label.removeprefix(arm.name)
        tuned, default = f"{arm.name}.tuned{rest}", f"{arm.name}.default{rest}"
        for seed in of.held_out_seeds:
            assert runs[tuned, seed].optimizer == arm.optimizer
            assert runs[default, seed] == own[arm.label, seed]
            assert runs[tuned, seed].seed not in of.seeds
        if arm.best:
            pair = (f"{arm.name}.tuned{rest}", f"{arm.name}.default{rest}")
            assert pair in [(c.candidate, c.baseline) for c in ablation.plan.comparisons]
    assert ablation.tuning is not None
    for arm in record.arms:
        how = ablation.tuning.arms[f"{arm.name}.tuned{arm.label.removeprefix(arm.name)}"]
        assert how.how == "tuned"
    names = [entry.name for entry in ablation.plan.comparisons]
    assert any(name.startswith("hf vs adam, tuned") for name in names)
    margins = {c.margin for c in ablation.plan.comparisons if c.name.startswith("hf vs adam")}
    assert margins == {1.2}


@pytest.mark.parametrize(
    "base",
    [
        (GRID, EXCLUDED),
        (UNION,),
        (UNION, NO_CURVATURE),
    ],
)
def test_what_was_not_tuned_is_not_held_against_anything(
    tmp_path: Path, base: tuple[tuple[str, str], ...]
) -> None:
    """The comparison has every cell of the study twice, the tuned one with its best settings."""
    of, record = tuned_study(tmp_path, FEW, SGD, *base)

    ablation = held_out(of, record, tmp_path / "out")
    write_tuned(of, record, tmp_path / "tuned.yaml")

    runs = {cell.arm: cell.run for cell in ablation.cells}
    twice = {
        arm.label.replace(arm.name, f"{arm.name}.{form}", 1): arm
        for arm in record.arms
        for form in ("default", "tuned")
    }
    assert set(runs) == set(twice)
    for label, arm in twice.items():
        if ".tuned" in label:
            assert runs[label].optimizer == arm.optimizer
    defaults = sum(arm.best == 0 for arm in record.arms)
    assert len(ablation.plan.comparisons) == count_tests(of) - defaults


@pytest.mark.parametrize(
    "entry",
    [
        "{at: {batch.gradient: 100}, set: {arms.sgd.lr: 0.2}}",
        "{at: {batch.gradient: 100, arms.adam.lr: 3.0e-3}, set: {budget.updates: 20}}",
        "{at: {arms.sgd.lr: 0.1, batch.gradient: 100}, set: {arms.hf.damping: 0.1}}",
    ],
)
def test_settings_of_the_ablation_itself_hold_for_both_forms_of_an_arm(
    tmp_path: Path, entry: str
) -> None:
    """Also for entries about arms that are not tuned."""
    change = f"grid: {{batch.gradient: [100, 200]}}\nsettings: [{entry}]\n{SEEDS}"
    of, record = tuned_study(tmp_path, FEW, SGD, (SEEDS, change))

    ablation = held_out(of, record, tmp_path / "out")

    runs = {(cell.arm, cell.seed): cell.run for cell in ablation.cells}
    own = {(cell.arm, cell.seed): cell.run for cell in of.plan.cells}
    for arm in record.arms:
        default = arm.label.replace(arm.name, f"{arm.name}.default", 1)
        tuned = arm.label.replace(arm.name, f"{arm.name}.tuned", 1)
        for seed in of.held_out_seeds:
            assert runs[default, seed] == own[arm.label, seed]
            assert runs[tuned, seed].budget == arm.budget
            assert runs[tuned, seed].optimizer == arm.optimizer


def test_a_loss_is_held_out_where_it_was_tuned(tmp_path: Path) -> None:
    """Its runs end at the budget, although those of the ablation end at the target."""
    of, record = tuned_study(tmp_path, ("trials: 8", "objective: final_loss\ntrials: 1"))

    ablation = held_out(of, record, tmp_path / "out")

    assert all(cell.run.stop_at for cell in of.plan.cells)
    assert not any(cell.run.stop_at for cell in ablation.cells)


def test_the_held_out_spec_can_be_run_again(tmp_path: Path) -> None:
    """The written spec has the same runs as the opened one."""
    of, record = tuned_study(tmp_path, FEW, GRID)
    ablation = held_out(of, record, tmp_path / "out")

    again = Ablation.open(tmp_path / "out" / "held_out.yaml", tmp_path / "out" / "held_out")

    assert again.plan == ablation.plan


@pytest.mark.parametrize("changes", [(FEW,), (FEW, GRID)])
def test_the_tests_of_the_comparison_are_known_before_any_trial(
    tmp_path: Path, changes: tuple[tuple[str, str], ...]
) -> None:
    """The number of tests in the held-out ablation if no default is the best."""
    of = study(tmp_path, *changes)
    cells, combinations = len(of.cells), len(of.variants)

    assert count_tests(of) == cells + combinations


def test_what_a_tuned_spec_is_made_from_is_not_replaced(tmp_path: Path) -> None:
    """The tuned spec cannot overwrite the study or its ablation."""
    of, record = tuned_study(tmp_path, FEW)
    before = (tmp_path / "study.yaml").read_text(), (tmp_path / "small.yaml").read_text()

    for name in ("study.yaml", "small.yaml"):
        with pytest.raises(InputError, match=naming(tmp_path / name)):
            write_tuned(of, record, tmp_path / name)

    assert before == ((tmp_path / "study.yaml").read_text(), (tmp_path / "small.yaml").read_text())

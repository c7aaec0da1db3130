"""A study and its ablation: what is accepted, and what results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bdhf.experiments.errors import SpecError
from tests.experiments.specs import STUDY, TWO_ARMS
from tests.messages import naming
from tests.tuning.synthetic import study

GRID = ("seeds: {count: 6}", "grid: {batch.gradient: [100, 200]}\nseeds: {count: 6}")


def test_every_arm_is_tuned_in_every_combination_of_the_grid(tmp_path: Path) -> None:
    """Two arms at two batch sizes are four cells, each with the space of its arm."""
    cells = study(tmp_path, GRID).cells

    assert [cell.label for cell in cells] == [
        "adam gradient=100", "adam gradient=200", "hf gradient=100", "hf gradient=200"
    ]  # fmt: skip
    assert {cell.run.gradient_batch for cell in cells} == {100, 200}
    assert cells[0].space == cells[1].space


def test_a_trial_ends_at_the_target_and_has_the_tuning_seeds(tmp_path: Path) -> None:
    """A trial ends at the first target, whatever `stop` of the ablation is."""
    cell = study(tmp_path, ("stop: at_target", "stop: at_budget")).cell("adam")

    run = cell.trial({"lr": 0.1}, 101)

    assert run.stop_at == (cell.goals[0].target,)
    assert run.seed == 101
    assert run.optimizer["lr"] == 0.1
    assert cell.run.seed == 100


@pytest.mark.parametrize(
    ("objective", "ends"),
    [
        ("[seconds_to_target, updates_to_target]", True),
        ("[updates_to_target, final_loss]", False),
        ("final_loss", False),
    ],
)
def test_a_trial_of_a_loss_runs_to_the_budget(tmp_path: Path, objective: str, ends: bool) -> None:
    """Otherwise the final loss would be the target."""
    cell = study(tmp_path, ("trials: 8", f"objective: {objective}\ntrials: 8")).cell("adam")

    assert bool(cell.trial({"lr": 0.1}, 101).stop_at) is ends


def test_what_the_study_sets_is_put_on_top(tmp_path: Path) -> None:
    """`set` changes the tuned ablation, and no file."""
    changed = study(
        tmp_path, ("trials: 8", "set: {budget: {updates: 7}, arms.adam.lr: 0.01}\ntrials: 8")
    )

    assert changed.cells[0].run.budget.updates == 7
    assert changed.cell("adam").run.optimizer["lr"] == 0.01
    assert (tmp_path / "small.yaml").read_text() == TWO_ARMS


def test_a_fingerprint_reports_definitions_apart(tmp_path: Path) -> None:
    """It changes with space, seeds, objective and sampler, and not with the number of trials."""
    changes = [
        (),
        (("trials: 8", "trials: 9"),),
        (("1.0e-4, 1.0]", "1.0e-4, 2.0]"),),
        (("count: 2, base: 100", "count: 3, base: 100"),),
        (("trials: 8", "objective: seconds_to_target\ntrials: 8"),),
        (("startup: 3", "startup: 4"),),
        (("encoder: [784, 12, 4]", "encoder: [784, 13, 4]"),),
    ]

    prints = []
    for change in changes:
        changed = study(tmp_path, *change)
        prints.append(changed.fingerprint(changed.cell("adam")))

    assert prints[0] == prints[1]
    assert len(set(prints[1:])) == len(prints) - 1


@pytest.mark.parametrize(
    ("old", "new", "where", "facts"),
    [
        ("base: 100", "base: 5", "14:8", ("0 to 5", "base: 1006")),
        ("trials: 8", "trails: 8", "13:1", ("'trails'",)),
        ("trials: 8", "trials: 0", "13:9", ("trials", 0)),
        ("trials: 8", "trials: 8\nobjective: updates", "14:12",
         ("'updates'", "updates_to_target", "final_loss")),
        ("trials: 8", "trials: 8\nobjective: []", "14:12", ("objective",)),
        ("trials: 8", "trials: 8\nobjective: products_to_target", "14:12",
         ("products", "updates", "updates_to_target", "seconds_to_target")),
        ("trials: 8", "trials: 8\nset: {budget: {seconds: 9}}", "1:1",
         ("updates", "seconds", "seconds_to_target")),
        ("type: tpe", "type: tep", "15:17", ("tpe", "gp", "cmaes", "random")),
        ("startup: 3", "statrup: 3", "15:22", ("'statrup'", "type", "seed", "startup")),
        ("ablation: small.yaml", "ablation: smal.yaml", "3:11", ("ablation", "smal.yaml")),
        ("trials: 8", "trials: 8\nset: {arms.adm.lr: 1}", "14:7", ("'adm'",)),
        ("trials: 8", "trials: 8\nset: {nothing: 1}", "14:7", ("'nothing'",)),
        (
            "trials: 8",
            "trials: 8\nobjective: [updates_to_target, seconds_to_target]\npruner: median",
            "15:9",
            ("`pruner: none`",),
        ),
        ("seeds: {count: 6}", "grid: {arms.hf.partition: [full, groups]}\nseeds: {count: 6}",
         "3:11", ("arms.hf.partition", "`spaces`")),
        ("seeds: {count: 6}", "grid: {problem.activation: [tanh, relu]}\nseeds: {count: 6}",
         "3:11", ("problem.activation",)),
        ("trials: 8", "trials: 8\nobjective: [final_loss, updates_to_target]", "14:12",
         ("updates_to_target",)),
        ("targets: [{metric: val_loss, below: 0.1}]\ncompare:\n  - {name: hf vs adam, candidate: "
         "hf, baseline: adam, margin: 1.2}", "", "1:1", ("updates_to_target", "`targets`")),
    ],
)  # fmt: skip
def test_a_wrong_study_is_reported_at_its_place(
    tmp_path: Path, old: str, new: str, where: str, facts: tuple[object, ...]
) -> None:
    """Each fault is a line with file, line, column, and the allowed values or the solution."""
    with pytest.raises(SpecError) as told:
        study(tmp_path, (old, new), *([("stop: at_target", "")] if not new else []))

    lines = [line for line in told.value.lines if re.search(naming(*facts), line)]
    assert lines, told.value.lines
    assert lines[0].startswith(f"{tmp_path}/study.yaml:{where}: "), lines


def test_a_fault_of_the_ablation_is_reported_in_its_own_file(tmp_path: Path) -> None:
    """A fault of the spec is reported at its line in the spec."""
    with pytest.raises(SpecError) as told:
        study(tmp_path, base=TWO_ARMS.replace("partition: full", "partition: ful"), text=STUDY)

    assert told.value.lines[0].startswith(f"{tmp_path}/small.yaml:7:")

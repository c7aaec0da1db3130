"""Search spaces: trials follow the YAML, and trial 0 has the settings of the spec."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest

from bdhf.experiments.errors import SpecError
from bdhf.tuning.study.space import Choice, Range, all_of, defaults, suggested
from tests.messages import naming
from tests.tuning.synthetic import study

HF = "damping=constant"


def test_the_defaults_are_the_settings_of_the_spec(tmp_path: Path) -> None:
    """A trial with the defaults of its space has exactly the arm of the spec."""
    for cell in study(tmp_path).cells:
        fixed = optuna.trial.FixedTrial(defaults(cell.space, cell.arm))

        assert cell.optimizer(suggested(cell.space, fixed)) == cell.run.optimizer


def test_a_conditional_parameter_exists_where_it_is_chosen(tmp_path: Path) -> None:
    """λ of constant damping and the initial one of Levenberg-Marquardt are never tried together."""
    hf = study(tmp_path).cell("hf")
    chosen = {"lr": 0.3, "damping": "levenberg_marquardt", "solver.max_iters": 7,
              "damping.levenberg_marquardt.initial": 2.0}  # fmt: skip
    settings = suggested(hf.space, optuna.trial.FixedTrial(chosen))

    arm = hf.optimizer(settings)

    assert "damping.constant.value" not in chosen
    assert arm["damping"]["type"] == "levenberg_marquardt"
    assert arm["damping"]["initial"] == 2.0
    assert arm["solver"]["max_iters"] == 7
    assert arm["partition"] == hf.run.optimizer["partition"]


def test_every_trial_lies_in_the_space(tmp_path: Path) -> None:
    """Random draws resolve to arms; values lie between the ends and are whole where required."""
    hf = study(tmp_path).cell("hf")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trials = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        settings = suggested(hf.space, trials.ask())
        arm = hf.optimizer(settings)

        assert 0.1 <= arm["lr"] <= 1
        assert isinstance(settings["solver.max_iters"], int)
        assert 2 <= settings["solver.max_iters"] <= 20
        assert arm["damping"]["type"] in ("constant", "levenberg_marquardt")


def test_fixed_values_stand_beside_what_is_searched(tmp_path: Path) -> None:
    """In a conditional space a plain value is fixed."""
    solver = "solver.max_iters: {log: [2, 20], whole: true}"
    choice = """solver:
      choice:
        cg: {max_iters: 5, tol: {log: [1.0e-5, 1.0e-2]}}
        sample_space:"""
    hf = study(tmp_path, (solver, choice)).cell("hf")
    fixed = {"lr": 0.5, "damping": "constant", "damping.constant.value": 0.1}

    cg = suggested(
        hf.space, optuna.trial.FixedTrial({**fixed, "solver": "cg", "solver.cg.tol": 1e-3})
    )
    direct = suggested(hf.space, optuna.trial.FixedTrial({**fixed, "solver": "sample_space"}))

    assert hf.optimizer(cg)["solver"]["max_iters"] == 5
    assert hf.optimizer(cg)["solver"]["tol"] == 1e-3
    assert hf.optimizer(direct)["solver"]["type"] == "sample_space"


SOLVER = "solver.max_iters: {log: [2, 20], whole: true}"
WITHOUT_A_RULE = f"""{SOLVER}
    solver.warm_start: {{choice: [0, 0.95]}}
    solver.stop: {{choice: [null, forcing, {{type: relative_residual, tol: 0.1}}]}}"""
WITH_A_RULE = f"""{SOLVER}
    solver.warm_start: {{linear: [0, 1]}}
    solver.stop:
      choice:
        martens_progress:
        relative_residual: {{tol: {{log: [1.0e-2, 0.5]}}}}
        forcing: {{most: {{linear: [0.1, 0.9]}}, gamma: 1.0}}"""


def test_a_stop_rule_is_one_of_several_values(tmp_path: Path) -> None:
    """With iterations, warm start and damping; null is no rule, and the default."""
    hf = study(tmp_path, (SOLVER, WITHOUT_A_RULE)).cell("hf")
    start = defaults(hf.space, hf.arm)
    chosen = {"solver.stop": "relative_residual", "solver.warm_start": "0", "solver.max_iters": 20,
              "damping": "levenberg_marquardt",
              "damping.levenberg_marquardt.initial": 2.0}  # fmt: skip

    arm = hf.optimizer(suggested(hf.space, optuna.trial.FixedTrial(start | chosen)))

    assert (start["solver.stop"], start["solver.warm_start"]) == ("null", "0.95")
    assert hf.optimizer(suggested(hf.space, optuna.trial.FixedTrial(start))) == hf.run.optimizer
    assert arm["solver"]["stop"] == {"type": "relative_residual", "tol": 0.1}
    assert (arm["solver"]["max_iters"], arm["solver"]["warm_start"]) == (20, 0)
    assert arm["damping"]["initial"] == 2.0


def test_the_tolerance_of_a_stop_rule_exists_where_it_is_chosen(tmp_path: Path) -> None:
    """Each type of a rule has its own space, with fixed values beside it."""
    rule = "max_iters: 5, stop: {type: relative_residual, tol: 0.1}"
    hf = study(tmp_path, (SOLVER, WITH_A_RULE), ("max_iters: 5", rule)).cell("hf")
    start = defaults(hf.space, hf.arm)
    forcing = {**start, "solver.stop": "forcing", "solver.stop.forcing.most": 0.3}
    del forcing["solver.stop.relative_residual.tol"]

    arm = hf.optimizer(suggested(hf.space, optuna.trial.FixedTrial(forcing)))

    assert start["solver.stop.relative_residual.tol"] == 0.1
    assert arm["solver"]["stop"] == {
        "type": "forcing", "initial": 0.5, "most": 0.3, "gamma": 1.0, "exponent": 2.0,
    }  # fmt: skip


def test_the_ends_of_a_range_are_its_edge(tmp_path: Path) -> None:
    """Within 1 % of the range, on its own scale, a value lies at the edge."""
    (adam,) = study(tmp_path).cell("adam").space
    assert isinstance(adam, Range)

    assert adam.at_edge(1.05e-4)
    assert adam.at_edge(0.95)
    assert not adam.at_edge(2e-4)
    assert not adam.at_edge(0.5)


def test_every_dimension_is_reported_with_what_brings_it_in(tmp_path: Path) -> None:
    """The records name each parameter once, with the choice on which it depends."""
    hf = study(tmp_path).cell("hf")
    parents = {dimension.name: dict(path) for dimension, path in all_of(hf.space)}

    assert parents["damping.constant.value"] == {"damping": "constant"}
    assert parents["lr"] == {}
    assert sum(isinstance(dimension, Choice) for dimension, _ in all_of(hf.space)) == 1


ADAM = "adam: {lr: {log: [1.0e-4, 1.0]}}"


@pytest.mark.parametrize(
    ("space", "where", "facts"),
    [
        ("adam: {lr: 0.1}", "5:14", ("log", "linear", "choice", "got 0.1")),
        ("adam: {lr: {lgo: [1, 2]}}", "5:15", ("'lgo'", "log", "linear", "choice")),
        ("adam: {lr: {log: [1], linear: [1, 2]}}", "5:20", ("lr.log", 2)),
        ("adam: {lr: {log: [1.0e-4, 1], linear: [1, 2]}}", "5:14", ("log", "linear", "choice")),
        ("adam: {lr: {log: [1, 0.1]}}", "5:20", (1, 0.1)),
        ("adam: {lr: {log: [0, 0.1]}}", "5:20", ("got 0", "linear")),
        ("adam: {lr: {log: [0.01, 0.1]}}", "5:14", (0.003, "0.01 to 0.1")),
        ("adam: {lr: {linear: [0, 1], whole: true}}", "5:14", (0.003, "0 to 1")),
        ("adam: {lr: {choice: [0.1, 0.003], whole: true}}", "5:15", ("`whole`",)),
        ("adam: {lr: {choice: [0.003]}}", "5:23", ("lr.choice", 2)),
        ("adam: {learning: {log: [1, 2]}}", "5:10", ("torch.Adam", "'learning'", "lr")),
        ("adam: {betas.0: {linear: [0.8, 0.99]}}", "5:10", ("betas.0",)),
        ("adam: {}", "5:9", ("adam",)),
        ("adam: {lr: {log: [1.0e-4, 1.0]}, lr.x: {log: [1, 2]}}", "5:10", ("lr", "'lr.x'")),
        ("adam: {lr: {linear: [-1, 1]}}", "5:14", ("lr",)),
        ("amda: {lr: {log: [1, 2]}}", "5:3", ("'amda'", "adam", "hf", "Did you mean")),
    ],
)
def test_a_wrong_space_is_reported_at_its_place(
    tmp_path: Path, space: str, where: str, facts: tuple[object, ...]
) -> None:
    """Each fault is a line with file, line, column, and the allowed values."""
    with pytest.raises(SpecError) as told:
        study(tmp_path, (ADAM, space))

    lines = [line for line in told.value.lines if re.search(naming(*facts), line)]
    assert lines, told.value.lines
    assert lines[0].startswith(f"{tmp_path}/study.yaml:{where}: spaces."), lines


def test_a_choice_that_changes_trial_0_is_refused(tmp_path: Path) -> None:
    """A type that omits an argument of the spec would give another trial 0."""
    solver = "solver.max_iters: {log: [2, 20], whole: true}"

    with pytest.raises(SpecError, match=naming("study.yaml:6:3", "spaces.hf")):
        study(tmp_path, (solver, "solver: {choice: {cg: {}, sample_space: {}}}"))

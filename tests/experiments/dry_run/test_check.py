"""First updates on synthetic data: arms that cannot run are refused before a plan or a claim."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from bdhf.experiments.ablation import Ablation
from bdhf.experiments.dry_run import check as dry_run_check
from bdhf.experiments.dry_run import first_update, passed
from bdhf.experiments.errors import SpecError
from bdhf.experiments.run.execute import execute
from bdhf.experiments.spec.schema import Safety
from bdhf.records import Status
from tests.experiments.own_problems import MODULE, written
from tests.experiments.specs import SMALL, changed
from tests.messages import naming

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of this test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "bdhf" / "tried"


def opened(folder, *arguments):
    """An ablation of one of a user's own problems."""
    return Ablation.open(written(folder, *arguments), folder / "results")


def refused(check, cells):
    """The lines with which a check refuses."""
    with pytest.raises(SpecError) as refusal:
        check(cells)
    return refusal.value.lines


def runs(ablation):
    """All runs of an ablation."""
    return [cell.run for cell in ablation.cells]


def test_arms_that_can_run_are_tried_once(tmp_path, cache, monkeypatch):
    """There is no message, only the cache is written, and the next plan tries nothing."""
    ablation = opened(tmp_path)

    assert ablation.check_arms(ablation.cells) == []
    ablation.check_data(runs(ablation))
    assert len(list(cache.iterdir())) == 2
    assert not ablation.store.folder.exists()

    monkeypatch.setattr(dry_run_check, "first_update", None)
    assert opened(tmp_path).check_arms(ablation.cells) == []


#: A problem -> what its fault names: losses, shapes, kinds.
BROADCAST = {
    "Flat": ("mse_loss", "(8, 1)", "(8,)"),
    "L1": ("l1_loss", "(8, 1)", "(8,)"),
    "Smooth": ("smooth_l1_loss", "(8, 1)", "(8,)"),
    "Huber": ("huber_loss", "(8, 1)", "(8,)"),
    "ByHand": ("(8, 1)", "(8,)"),
    "Wide": ("mse_loss", "(8, 3)", "(8, 1)"),
}
UNFIT = {
    **BROADCAST,
    "Bytes": ("(8, 4)", "uint8"),
    "Unmeasured": ("measure", "absolute", "relative", "`metrics`"),
}


@pytest.mark.parametrize("problem", UNFIT)
def test_a_problem_that_does_not_fit_is_reported(tmp_path, problem):
    """One line at the problem, for all arms."""
    ablation = opened(tmp_path, problem)

    (line,) = refused(ablation.check_arms, ablation.cells)

    assert line.startswith(f"{tmp_path / 'spec.yaml'}:3:10: problem: own_problems_here:{problem}")
    assert all(fact in line for fact in (*UNFIT[problem], "--no-check"))


@pytest.mark.parametrize("problem", ["Flat", "ByHand", "Many"])
def test_a_run_that_is_begun_all_the_same_fails_at_its_start(tmp_path, problem):
    """With the facts of the check, and no row of a curve."""
    run = opened(tmp_path, problem).cells[0].run
    outcome = execute(run, device="cpu", safety=Safety(seconds=60))

    assert outcome.status is Status.ERROR
    assert outcome.reason.startswith("Misfit: ")
    assert all(fact in outcome.reason for fact in (UNFIT | DATA)[problem])
    assert len(outcome.curve) == 0


def test_a_loss_that_reshapes_by_itself_is_fine(tmp_path):
    """Targets (N,) are no fault where the loss makes outputs of that shape."""
    ablation = opened(tmp_path, "Squeezed")

    assert ablation.check_arms(ablation.cells) == []


@pytest.mark.parametrize(("problem", "told"), [("Dropping", "Dropout"), ("Normed", "BatchNorm1d")])
def test_what_has_no_curvature_is_reported_for_the_arm_that_takes_one(tmp_path, problem, told):
    """Adam trains it; block_hf cannot, and names the module."""
    ablation = opened(tmp_path, problem)

    (line,) = refused(ablation.check_arms, ablation.cells)

    assert line.startswith(f"{tmp_path / 'spec.yaml'}:7:3: arms.hf: hf: ")
    assert told in line


def test_an_own_optimizer_that_refuses_the_model_is_reported(tmp_path):
    """At its arm, with its own message; the other arms are not named."""
    ablation = opened(
        tmp_path, "Fits", ("{type: torch.Adam, lr: 3.0e-3}", '"own_problems_here:Stubborn"')
    )

    (line,) = refused(ablation.check_arms, ablation.cells)

    assert ":6:3: arms.adam: adam: " in line
    assert "ValueError: matrices only" in line


def test_an_arm_of_a_grid_is_reported_by_its_label(tmp_path):
    """The combination that fails, not those that do not."""
    grid = 'grid: {problem: ["own_problems_here:Fits", "own_problems_here:Dropping"]}\nseeds'
    ablation = opened(tmp_path, "Fits", ("seeds", grid))

    (line,) = refused(ablation.check_arms, ablation.cells)

    assert "arms.hf: hf problem=own_problems_here:Dropping: " in line


@pytest.mark.parametrize(
    "arm", ["torch.SparseAdam", "torch.Muon", "{type: torch.Adam, capturable: true}"]
)
def test_an_optimizer_of_torch_that_cannot_update_here_is_refused_by_the_spec(tmp_path, arm):
    """Before any check, with its location."""
    with pytest.raises(SpecError, match=r"arms\.adam"):
        opened(tmp_path, "Fits", ("{type: torch.Adam, lr: 3.0e-3}", arm))


DATA = {
    "Many": ("`samples`", "5000", "load()", "40"),
    "Plain": ("load()", "tuple", "bdhf.problems.data.Data("),
    "Other": ("example", "(2, 4)", "train", "load()", "(40, 2, 2)"),
    "Unpaired": ("train", "load()", "inputs", "targets"),
}


@pytest.mark.parametrize("problem", DATA)
def test_data_that_is_not_what_its_problem_says_is_reported(tmp_path, problem):
    """`example` is valid, so only the data shows it: once, before all runs."""
    ablation = opened(tmp_path, problem)

    assert ablation.check_arms(ablation.cells) == []
    (line,) = refused(ablation.check_data, runs(ablation))

    assert f":3:10: problem: own_problems_here:{problem}: " in line
    assert all(fact in line for fact in DATA[problem])


def test_data_that_cannot_be_loaded_is_one_line(tmp_path):
    """Whatever error the user's code raises."""
    ablation = opened(tmp_path, "Failing")

    (line,) = refused(ablation.check_data, runs(ablation))

    assert "load() of own_problems_here:Failing " in line
    assert "FileNotFoundError: data.csv is gone" in line


def test_data_of_another_floating_type_is_fine(tmp_path):
    """A run casts it."""
    ablation = opened(tmp_path, "Doubles")

    ablation.check_data(runs(ablation))

    assert execute(runs(ablation)[0], device="cpu", safety=Safety(seconds=60)).status is Status.DONE


LEFT_OUT = {
    "Unwilling": "own_problems_here:Unwilling",
    "Infinite": "loss",
}


@pytest.mark.parametrize("problem", LEFT_OUT)
def test_what_cannot_be_tried_is_left_out_and_reported(tmp_path, cache, problem):
    """One line, no fault, and no entry in the cache."""
    ablation = opened(tmp_path, problem)

    (line,) = ablation.check_arms(ablation.cells)

    assert line.startswith("not checked: adam and 1 more: ")
    assert LEFT_OUT[problem] in line
    assert not cache.exists()


def test_a_large_model_is_left_out_and_never_built(tmp_path, monkeypatch):
    """Its parameters are counted without their values."""
    monkeypatch.setattr(first_update, "PARAMETERS", 10)
    ablation = opened(tmp_path)
    monkeypatch.setattr(first_update, "model_of", None)

    (line,) = ablation.check_arms(ablation.cells)

    assert re.findall(r"\d+", line) == ["1", "19", "10"]  # 1 more arm, parameters, limit


def test_no_arm_is_begun_when_the_time_is_over(tmp_path, monkeypatch, cache):
    """The arms left out are named, and the next check starts with them."""
    ablation = opened(tmp_path)
    clock = iter([0.0, 1.0, *[2.0] * 20, *[9.0] * 100])
    begun = []

    def update(run, watch):
        begun.append(run.optimizer["type"])
        while True:  # an update that takes what there is
            watch()

    with monkeypatch.context() as within:
        within.setattr(dry_run_check, "first_update", update)
        within.setattr(dry_run_check.time, "monotonic", lambda: next(clock))
        lines = ablation.check_arms(ablation.cells)

    assert begun == ["torch.Adam"]
    assert [line.split(": ")[1] for line in lines] == ["adam", "hf"]
    assert all(f" {dry_run_check.SECONDS:g} s " in line for line in lines)
    assert not cache.exists()


def test_what_failed_is_tried_again(tmp_path, cache):
    """Only arms that worked are cached, so that a repair elsewhere takes effect."""
    ablation = opened(tmp_path, "Dropping")

    first, second = (refused(ablation.check_arms, ablation.cells) for _ in range(2))

    assert first == second
    assert len(list(cache.iterdir())) == 1  # Adam


def test_a_changed_module_is_tried_again(tmp_path, monkeypatch):
    """The file of a user's own part is part of the key; a seed and a budget are not."""
    module = tmp_path / "tried_here.py"
    module.write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    plain = opened(tmp_path).cells[0].run
    run = plain.model_copy(update={"problem": {**plain.problem, "type": "tried_here:Part"}})
    before = passed.key_of(run)

    assert passed.key_of(run.model_copy(update={"seed": 7, "evaluate_every": 5})) == before
    module.write_text(MODULE + "\n# changed\n")
    assert passed.key_of(run) != before


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    """A home that is a file, or none at all."""
    (tmp_path / "home").write_text("")
    ablation = opened(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert ablation.check_arms(ablation.cells) == []

    def homeless():
        raise RuntimeError("could not determine home directory")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(passed.Path, "home", homeless)
    assert ablation.check_arms(ablation.cells) == []


def test_no_random_stream_moves_and_no_id_changes(tmp_path):
    """Whatever a user's code draws meanwhile."""
    ablation = opened(tmp_path, "Drawing")
    before = [cell.run_id for cell in ablation.cells]
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    expected = torch.rand(2).tolist(), random.random(), np.random.rand()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)

    ablation.check_arms(ablation.cells)
    ablation.check_data(runs(ablation))

    assert (torch.rand(2).tolist(), random.random(), np.random.rand()) == expected
    assert [cell.run_id for cell in opened(tmp_path, "Drawing").cells] == before


def test_arms_that_differ_in_numbers_alone_share_a_first_update(tmp_path, cache):
    """A rate, a damping or the iterations of cg decide nothing; a damping of 0 does."""
    spec = tmp_path / "spec.yaml"
    grid = "grid: {arms.full_hf.lr: [0.1, 0.5], arms.full_hf.damping: [0.1, 0.2, 0.0]}\nseeds"
    spec.write_text(changed(("seeds", grid)))
    ablation = Ablation.open(spec, tmp_path / "results")

    assert ablation.check_arms(ablation.cells) == []
    assert len(ablation.plan.arms) == 8
    assert len(list(cache.iterdir())) == 4  # adam, block_hf, full_hf damped and undamped


@pytest.mark.parametrize("solver", ["cg, max_iters", "saddle_free, iterations"])
def test_arms_that_differ_in_iterations_share_a_first_update(tmp_path, cache, solver):
    """Three numbers of iterations make one update, for every solver that has them."""
    spec = tmp_path / "spec.yaml"
    values = ", ".join(f"{{type: {solver}: {number}}}" for number in (5, 9, 30))
    spec.write_text(changed(("seeds", f"grid: {{arms.full_hf.solver: [{values}]}}\nseeds")))
    ablation = Ablation.open(spec, tmp_path / "results")

    assert ablation.check_arms(ablation.cells) == []
    assert len(ablation.plan.arms) == 5
    assert len(list(cache.iterdir())) == 3  # adam, block_hf, full_hf


def test_skipped_arms_are_not_tried(tmp_path, monkeypatch):
    """They are not run either."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(SMALL + "safety: {gradient_equivalents: 1}\n")
    ablation = Ablation.open(spec, tmp_path / "results")
    tried_arms = []
    monkeypatch.setattr(dry_run_check, "first_update", lambda run, watch: tried_arms.append(run))

    assert ablation.check_arms(ablation.cells) == []
    assert tried_arms == []


OBJECTS = {
    "Objects": ("'device'", "device"),
    "Lambda": ("'init'", "function"),
}


@pytest.mark.parametrize("problem", OBJECTS)
def test_a_default_that_no_spec_can_hold_is_reported_in_a_line(tmp_path, problem):
    """With the field, and what is allowed."""
    with pytest.raises(SpecError) as refusal:
        opened(tmp_path, problem)

    (line,) = refusal.value.lines
    assert f":3:10: problem: own_problems_here:{problem}: " in line
    assert all(fact in line for fact in (*OBJECTS[problem], "protocol"))


def test_a_part_may_be_annotated_with_its_class(tmp_path):
    """It resolves as with the protocol, and accepts no other part."""
    ablation = opened(tmp_path, "Concrete")

    assert runs(ablation)[0].problem["init"] == {"type": "glorot"}
    assert ablation.check_arms(ablation.cells) == []
    with pytest.raises(SpecError, match=naming("init", "sparse", "glorot")):
        opened(
            tmp_path, "Concrete",
            ('"own_problems_here:Concrete"', '{type: "own_problems_here:Concrete", init: sparse}'),
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(file, id=file.stem, marks=pytest.mark.long if file.stem == "smoke" else ())
        for file in sorted((ROOT / "ablations").rglob("*.yaml"))
    ],
)
def test_shipped_specs_can_run(spec, tmp_path, monkeypatch):
    """Every arm of every shipped spec that the time allows makes its first update."""
    monkeypatch.chdir(ROOT)
    ablation = Ablation.open(spec, tmp_path)

    lines = ablation.check_arms(ablation.cells)

    limits = f" {dry_run_check.SECONDS:g} s ", f" {first_update.PARAMETERS:,} "
    assert all(any(limit in line for limit in limits) for line in lines)

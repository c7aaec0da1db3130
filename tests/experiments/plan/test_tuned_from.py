"""How the settings of an ablation were tuned: its arms, compared with the record of a study."""

import json
import re
from dataclasses import replace

import pytest

import bdhf
from bdhf.experiments.ablation import Ablation
from bdhf.experiments.errors import SpecError
from bdhf.experiments.plan.tuned_from import tuned
from bdhf.experiments.spec.load import variants
from bdhf.experiments.spec.yaml_source import parse
from bdhf.experiments.storage.store import Store
from bdhf.records import Target, TunedArm, Tuning, collect
from tests.experiments.specs import SMALL, cells, changed, planned
from tests.messages import naming

STUDY = "studies/small"
TUNED_FROM = ("seeds:", f"tuned_from: {STUDY}\nseeds:")


def of_study(plan, **changes):
    """The arms of a plan as arms of a record, as if the study had chosen their settings."""
    runs = {cell.arm: cell.run for cell in reversed(plan.cells)}
    return tuple(
        TunedArm(
            label=arm.label, name=arm.name, values=arm.values, budget=arm.budget, space=(),
            gradient_batch=runs[arm.label].gradient_batch,
            curvature_batch=runs[arm.label].curvature_batch,
            optimizer=runs[arm.label].optimizer, horizons={"updates_to_target": 6.0},
            finished=24, best=7, best_value=4.5, least=4.0, largest=5.0, at_edge=("lr",),
        ).model_copy(update=changes)
        for arm in plan.arms
    )  # fmt: skip


def record(plan=None, arms=None, **changes):
    """The record of a study of the small spec, or of another plan."""
    plan = plan or planned()
    return Tuning(
        name="small", ablation="small.yaml", problem=plan.cells[0].run.problem,
        objectives=("updates_to_target",), target=Target(metric="val_loss", below=0.08), trials=24,
        seeds=(1000, 1001), held_out_seeds=(0, 1), sampler="tpe, seed 0", pruner="none",
        arms=of_study(plan) if arms is None else arms,
    ).model_copy(update=changes)  # fmt: skip


def compared(tmp_path, record, *changes):
    """The tuning of the small spec, changed, by a record next to it."""
    (tmp_path / "small.tuning.json").write_text(record.model_dump_json())
    return tuned(STUDY, tmp_path, tmp_path / "results", planned(*changes))


def test_the_settings_that_a_study_chose_are_tuned(tmp_path):
    """Every arm has its trials, the best value with its range, and settings at an edge."""
    small = compared(tmp_path, record())

    assert (small.study, small.missing, small.seeds) == (STUDY, "", (1000, 1001))
    assert (small.objective, small.target) == ("updates_to_target", "val_loss ≤ 0.08")
    assert (small.sampler, small.pruner, small.shared_seeds) == ("tpe, seed 0", "none", ())
    assert list(small.arms) == ["adam", "full_hf", "block_hf"]
    for arm in small.arms.values():
        assert (arm.how, arm.why, arm.trials, arm.at_edge) == ("tuned", "", 24, ("lr",))
        assert (arm.best, arm.low, arm.high, arm.missed) == (4.5, 4.0, 5.0, False)


def test_a_best_value_beyond_the_horizon_is_a_miss(tmp_path):
    """It is not a cost, because no seed reached the target."""
    small = compared(tmp_path, record(arms=of_study(planned(), best_value=6.5)))

    assert [arm.missed for arm in small.arms.values()] == [True] * 3


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("partition: full, lr: 0.5", "partition: full, lr: 0.3"), "lr 0.3, tuned 0.5"),
        (("partition: full, lr: 0.5", "partition: full, lr: 0.50000001"),
         "lr 0.50000001, tuned 0.5"),
        (("partition: full, lr", "partition: per_layer, lr"),
         "partition per_layer, tuned full"),
        (("partition: full, lr: 0.5", "partition: full, method: propagate, lr: 0.4"),
         "lr 0.4, tuned 0.5 and method propagate, tuned auto"),
    ],
)  # fmt: skip
def test_other_settings_are_changed_and_named(tmp_path, change, why):
    """With the values that the study chose; a part of another type is one difference."""
    arms = compared(tmp_path, record(), change).arms

    assert (arms["full_hf"].how, arms["full_hf"].why) == ("changed", why)
    assert arms["adam"].how == "tuned"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ([("gradient: 200", "gradient: 100")], "gradient batch 100, tuned at 200"),
        ([("curvature: 50", "curvature: 25")], "curvature batch 25, tuned at 50"),
        ([(", curvature: 50", "")], "curvature batch 200, tuned at 50"),
        ([("[784, 12, 4]", "[784, 8, 4]")],
         "tuned on another problem: encoder [784, 8, 4], tuned [784, 12, 4]"),
    ],
)  # fmt: skip
def test_an_arm_that_was_tuned_elsewhere_says_where(tmp_path, changes, why):
    """On another problem, or at other batch sizes."""
    arms = compared(tmp_path, record(), *changes).arms

    assert (arms["full_hf"].how, arms["full_hf"].why) == ("elsewhere", why)


def test_an_arm_is_held_against_its_own_batch_size(tmp_path):
    """Each batch size has its own tuned settings."""
    grid = ("stop:", "grid: {batch.gradient: [100, 200, 400]}\nstop:")
    rates = ("stop:", "settings: [{at: {batch.gradient: 100}, set: {arms.adam.lr: 0.1}}]\nstop:")
    study = planned(("stop:", "grid: {batch.gradient: [100, 200]}\nstop:"), rates)

    with_its_own = compared(tmp_path, record(study), grid, rates).arms
    with_one_rate = compared(tmp_path, record(study), grid).arms

    assert [with_its_own[f"adam gradient={size}"].how for size in (100, 200, 400)] == [
        "tuned", "tuned", "elsewhere",
    ]  # fmt: skip
    assert with_its_own["adam gradient=400"].why == "gradient batch 400, tuned at 100 and 200"
    assert with_one_rate["adam gradient=100"].why == "lr 0.003, tuned 0.1"


def test_a_name_makes_no_settings_tuned(tmp_path):
    """The same settings under another name are tuned; an arm without a record is not."""
    renamed = compared(tmp_path, record(), ("  adam:", "  adam_2:")).arms
    unknown = compared(tmp_path, record(arms=of_study(planned())[1:])).arms

    assert renamed["adam_2"].how == "tuned"
    assert (unknown["adam"].how, unknown["adam"].why) == ("untuned", "")


def test_an_arm_of_which_no_trial_was_completed_is_untuned(tmp_path):
    """The study could not choose settings."""
    arms = compared(tmp_path, record(arms=of_study(planned(), best=None, optimizer={}))).arms

    assert arms["adam"].how == "untuned"
    assert arms["adam"].why == "no trial of it was completed"


def test_seeds_of_the_study_that_the_ablation_has_too_are_named(tmp_path):
    """For any held-out seeds of the study."""
    assert compared(tmp_path, record(seeds=(1, 2))).shared_seeds == (1,)


def test_the_record_beside_the_spec_comes_first(tmp_path):
    """Then that in the results folder; if neither exists, both are named."""
    there = tmp_path / "results" / STUDY
    plan = planned()
    nowhere = tuned(STUDY, tmp_path, tmp_path / "results", plan)
    there.mkdir(parents=True)
    (there / "study.json").write_text(record(sampler="random").model_dump_json())
    among_results = tuned(STUDY, tmp_path, tmp_path / "results", plan)

    assert re.match(naming(tmp_path / "small.tuning.json", there / "study.json"), nowhere.missing)
    assert (among_results.missing, among_results.sampler) == ("", "random")
    assert compared(tmp_path, record()).sampler == "tpe, seed 0"


@pytest.mark.parametrize(
    ("content", "name"),
    [("{", "small.tuning.json"), (record(name="other").model_dump_json(), "'other'")],
    ids=["torn", "another study"],
)
def test_a_record_that_cannot_serve_says_why(tmp_path, content, name):
    """It is not used, and nothing is raised."""
    (tmp_path / "small.tuning.json").write_text(content)

    small = tuned(STUDY, tmp_path, tmp_path, planned())

    assert re.search(naming(name), small.missing)
    assert small.arms == {}


def test_naming_a_study_changes_no_run():
    """The study that settings come from changes no run."""
    assert [c.run_id for c in cells(TUNED_FROM)] == [c.run_id for c in cells()]


@pytest.mark.parametrize("name", ["small", "studies/", "studies/../x", "3", "/studies/x"])
def test_what_is_no_study_is_reported(name):
    """The line has the position of the name."""
    with pytest.raises(SpecError, match=r"f:10:13: tuned_from: "):
        variants(parse(changed(("seeds:", f"tuned_from: {name}\nseeds:")), "f"))


def test_what_is_known_stands_in_the_results(tmp_path):
    """`bdhf run` reads it, plan.json stores it, and `bdhf.load` gives it, in order of the arms."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(changed(TUNED_FROM))
    (tmp_path / "small.tuning.json").write_text(record().model_dump_json())
    ablation = Ablation.open(spec, tmp_path / "results" / "small")

    ablation.store.begin(ablation.text, ablation.plan, ablation.tuning)
    records = bdhf.load(ablation.store.folder)

    assert records.tuning == ablation.tuning
    assert ablation.tuning.arms["adam"].how == "tuned"
    assert list(records.in_order().tuning.arms) == ["adam", "block_hf", "full_hf"]


def test_without_a_study_plan_json_is_as_it_was(tmp_path):
    """An older bdhf reads it."""
    store = Store(tmp_path)
    store.begin(SMALL, planned())
    collect(tmp_path)

    assert "tuning" not in json.loads((tmp_path / "plan.json").read_text())
    assert bdhf.load(tmp_path).tuning is None
    assert replace(bdhf.load(tmp_path)).in_order().tuning is None

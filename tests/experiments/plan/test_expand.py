"""Plans: their cells, and what the id of a run depends on."""

import pytest

from tests.experiments.specs import cells, changed


def ids(*changes):
    """Run ids of the small spec, changed: arm -> ids by seed."""
    by_arm = {}
    for cell in cells(*changes):
        by_arm.setdefault(cell.arm, []).append(cell.run.run_id)
    return by_arm


def test_every_arm_meets_every_seed_once():
    """The plan is arms × seeds, seed by seed, so that pairs are complete early."""
    assert [(cell.arm, cell.seed) for cell in cells(("count: 2", "count: 2, base: 5"))] == [
        ("adam", 5), ("full_hf", 5), ("block_hf", 5),
        ("adam", 6), ("full_hf", 6), ("block_hf", 6),
    ]  # fmt: skip


def test_ids_are_golden():
    """The ids of a fixed spec do not change by accident: finished runs are found again."""
    assert ids() == GOLDEN


GOLDEN = {
    "adam": ["5c00785b66bc29d9", "f6fe63dda0e03d64"],
    "full_hf": ["49b526da91f88891", "6d21ccb23b3c8d8d"],
    "block_hf": ["72aff471dd5acfa4", "a44bde4681198007"],
}

SAME = {
    "whole float": ("gradient: 200", "gradient: 2.0e2"),
    "order of keys": ("lr: 0.5, damping: 1.0e-2", "damping: 1.0e-2, lr: 0.5"),
    "notation": ("damping: 1.0e-2", "damping: 0.01"),
    "default written out": ("max_iters: 5", "max_iters: 5, tol: 5e-4"),
    "torch default written out": ("lr: 3.0e-3", "lr: 3.0e-3, eps: 1.0e-8"),
    "mapping for a name": ("partition: full", "partition: {type: full}"),
    "share for a number": ("curvature: 50", "curvature: 0.25"),
    "device": ("stop: at_budget", "stop: at_budget\ndevice: cpu"),
    "safety": ("stop: at_budget", "stop: at_budget\nsafety: {seconds: 9}"),
    "name of the ablation": ("name: small", "name: other"),
    "more seeds": ("count: 2", "count: 3"),
    "targets of runs that end at the budget": ("below: 0.08", "below: 0.07"),
}


@pytest.mark.parametrize("change", SAME)
def test_what_does_not_change_the_result_does_not_change_the_id(change):
    """Notation, device, names and safety limits change no id."""
    before, after = ids(), ids(SAME[change])

    assert {arm: run_ids[:2] for arm, run_ids in after.items()} == before


DIFFERENT = {
    "dtype": ("stop: at_budget", "stop: at_budget\ndtype: float64"),
    "threads": ("stop: at_budget", "stop: at_budget\nthreads: 2"),
    "seed": ("count: 2", "count: 2, base: 2"),
    "evaluation interval": ("every_updates: 2", "every_updates: 1"),
    "gradient batch": ("gradient: 200", "gradient: 100"),
    "budget": ("updates: 6", "updates: 7"),
    "stop": ("at_budget", "at_target"),
    "split of the data": ("autoencoder,", "autoencoder, data_seed: 1,"),
}


@pytest.mark.parametrize("change", DIFFERENT)
def test_what_changes_the_result_changes_every_id(change):
    """Different runs have different ids."""
    before, after = ids(), ids(DIFFERENT[change])

    for arm in before:
        assert not set(before[arm]) & set(after[arm])


def test_the_algorithm_version_changes_the_id():
    """A new version of the method does not reuse the runs of the old one."""
    run = cells()[0].run

    assert run.model_copy(update={"algorithm": run.algorithm + 1}).run_id != run.run_id


def test_an_arm_without_curvature_ignores_the_curvature_batch():
    """Adam does not use it, so its runs stay the same."""
    before, after = ids(), ids(("curvature: 50", "curvature: 25"))

    assert before["adam"] == after["adam"]
    assert before["full_hf"] != after["full_hf"]


def test_targets_enter_the_id_where_they_end_the_run():
    """With stop: at_target another target is another run."""
    stop = ("at_budget", "at_target")

    assert ids(stop) != ids(stop, ("below: 0.08", "below: 0.07"))


def test_two_arms_with_one_definition_share_their_runs():
    """The name of an arm is not part of the result."""
    by_arm = ids(("arms:\n", "arms:\n  twin: {type: torch.Adam, lr: 3.0e-3}\n"))

    assert by_arm["twin"] == by_arm["adam"]


def test_a_fraction_is_a_share_of_the_gradient_batch():
    """0.25 of 200 is 50, and a curvature batch as large as the gradient batch is that batch."""
    assert cells(("curvature: 50", "curvature: 0.25"))[1].run.curvature_batch == 50
    assert cells(("curvature: 50", "curvature: 200"))[1].run.curvature_batch is None
    assert cells(("curvature: 50", "curvature: 0.9999"))[1].run.curvature_batch is None
    assert cells((", curvature: 50", ""))[1].run.curvature_batch is None


def test_a_run_spec_survives_its_own_file():
    """The file in the folder of a run gives the same id."""
    for cell in cells():
        again = type(cell.run).model_validate(cell.run.model_dump(mode="json"))
        assert again.run_id == cell.run.run_id


def test_changed_helper_is_honest():
    """A change that changes nothing in the text fails the test that uses it."""
    with pytest.raises(AssertionError):
        changed(("not in the spec", ""))

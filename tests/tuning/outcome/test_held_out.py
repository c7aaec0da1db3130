"""The combinations of a grid as entries of `settings`."""

import json

import pytest

from bdhf.experiments.spec.load import variants
from bdhf.experiments.spec.yaml_source import parse
from bdhf.tuning.outcome.held_out import at_of
from tests.experiments.specs import changed

AXES = (
    "batch.gradient: [100, 200]",
    "problem.encoder: [[784, 12, 4], [784, 4]]",
    "arms.adam.betas: [[0.9, 0.99], [0.8, 0.9]]",
    "arms.full_hf.solver: [cg, {type: cg, max_iters: 5}, cholesky]",
)


@pytest.mark.parametrize("axis", AXES)
def test_an_entry_for_a_combination_applies_there_and_nowhere_else(axis):
    """Also where the value of an axis is a list; in `at`, a list means any of its values."""
    grid = f"grid: {{{axis}}}\nseeds:"
    every = variants(parse(changed(("seeds:", grid))))

    for variant in every:
        entry = json.dumps({"at": at_of(variant), "set": {"budget.updates": 3}})
        combinations = variants(parse(changed(("seeds:", f"settings: [{entry}]\n{grid}"))))
        budgets = [combination.spec.budget.limit for combination in combinations]
        assert budgets == [3 if combination.picks == variant.picks else 6 for combination in every]

"""Specs: all faults are reported before anything is run."""

import pytest
import torch

from bdhf.experiments.errors import SpecError
from bdhf.experiments.parts.problems_and_arms import resolve_arm, resolve_problem
from bdhf.experiments.parts.tables import catalogue, optimizer_of, problem_of
from bdhf.experiments.spec.load import check_spec
from bdhf.experiments.spec.yaml_source import parse
from bdhf.optim import BlockHessianFree, QuadraticMomentum
from tests.experiments.faults import FAULTS
from tests.experiments.specs import SMALL, changed, planned
from tests.messages import naming


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_reported_with_place_and_remedy(fault):
    """Every fault names file, line, column and key, and the allowed or nearest values."""
    old, new, start, mention = FAULTS[fault]

    with pytest.raises(SpecError) as caught:
        check_spec(parse(changed((old, new)), "spec.yaml"))

    matching = [line for line in caught.value.lines if line.startswith(f"spec.yaml:{start}")]
    assert matching, caught.value.lines
    assert mention in matching[0]


def test_faults_of_different_arms_are_reported_together():
    """Faults of all arms are reported at once."""
    text = changed(("lr: 3.0e-3", "lr: -1"), ('["decoder.*"]', '["decodr.*"]'))

    with pytest.raises(SpecError) as caught:
        check_spec(parse(text))

    assert [line.split(": ")[1] for line in caught.value.lines] == [
        "arms.adam.lr",
        "arms.block_hf.partition",
    ]


def test_targets_are_needed_to_stop_at_them_or_to_compare():
    """Without targets, a comparison of costs to target and `stop: at_target` are refused."""
    line = "targets: [{metric: val_loss, below: 0.08}]\n"

    with pytest.raises(SpecError, match=naming("stop", "at_target", "`targets`", "at_budget")):
        check_spec(parse(changed((line, ""), ("at_budget", "at_target"))))
    with pytest.raises(SpecError, match=naming("compare", "`targets`", "final_loss")):
        check_spec(parse(changed((line, ""))))


@pytest.mark.parametrize("text", ["", "- 1", "3", "text"])
def test_a_file_that_is_no_mapping_is_refused(text):
    """A spec must be a mapping."""
    with pytest.raises(SpecError, match=naming("`schema: 1`")):
        check_spec(parse(text))


def test_defaults_are_written_out():
    """A part given by name is resolved to its type and every argument."""
    arm = check_spec(parse(SMALL)).arms["full_hf"]

    assert arm["curvature"] == {"type": "ggn"}
    assert arm["acceptance"] == {"type": "full_step"}
    assert arm["damping"] == {"type": "constant", "value": 0.01}
    assert arm["solver"] == {
        "type": "cg",
        "max_iters": 5,
        "tol": 5e-4,
        "residual_tol": 0.0,
        "warm_start": 0.95,
        "check_every": None,
        "float64_dots": False,
        "preconditioner": {"type": "none"},
        "stop": None,
    }


def test_groups_alone_are_the_blocks_of_the_problem():
    """`partition: groups` takes the problem's own blocks: encoder and decoder."""
    arm = check_spec(parse(changed(("partition: full", "partition: groups")))).arms["full_hf"]

    assert arm["partition"] == {"type": "groups", "blocks": [["encoder.*"], ["decoder.*"]]}


INSIDE = {
    "random": ("partition: full", "partition: {type: random, like: per_layer, seed: 3}"),
    "blend": (
        "partition: full",
        "partition: {type: blend, partition: {type: groups, blocks: [['*']]}, alpha: 0.5}",
    ),
    "blend of the problem's blocks": (
        "partition: full",
        "partition: {type: blend, partition: groups, alpha: 0.5}",
    ),
    "preconditioner": ("max_iters: 5", "max_iters: 5, preconditioner: martens"),
    "stop rule": ("max_iters: 5", "max_iters: 5, stop: {type: relative_residual, tol: 0.2}"),
    "initialisation": ("autoencoder,", "autoencoder, init: {type: sparse, connections: 15},"),
}


@pytest.mark.parametrize("inside", INSIDE)
def test_parts_inside_parts_are_resolved_and_built(inside):
    """A nested part is written out completely, is built, and resolves to itself."""
    spec = check_spec(parse(changed(INSIDE[inside])))
    problem, arm = problem_of(spec.problem), spec.arms["full_hf"]

    optimizer = optimizer_of(arm, problem.build(), problem)

    assert isinstance(optimizer, BlockHessianFree)
    assert resolve_problem(spec.problem) == spec.problem
    assert resolve_arm("full_hf", arm, problem) == arm


def test_arms_are_built_as_they_are_written():
    """The optimizers have the parts and numbers of the spec."""
    spec = check_spec(parse(changed(("{type: torch.Adam, lr: 3.0e-3}", "torch.LBFGS"))))
    problem = problem_of(spec.problem)
    model = problem.build()

    built = {name: optimizer_of(arm, model, problem) for name, arm in spec.arms.items()}

    assert isinstance(built["adam"], torch.optim.LBFGS)
    block_hf = built["block_hf"]
    assert isinstance(block_hf, BlockHessianFree)
    assert len(block_hf.blocks.rows) == 2
    assert [group["lr"] for group in block_hf.param_groups] == [0.5, 0.5]
    assert block_hf.solver.max_iters == 5


#: No change of the small spec, and no momentum written out.
NO_MOMENTUM = ((), (("partition: full", "partition: full, momentum: null"),))


def test_momentum_may_be_null_and_other_parts_may_not():
    """Null is no momentum, and is written out; null for a part with a default is a fault."""
    arms = check_spec(parse(changed(("partition: full", "momentum: quadratic")))).arms
    spec = check_spec(parse(changed(("partition: full", "momentum: null"))))
    problem = problem_of(spec.problem)

    without = optimizer_of(spec.arms["full_hf"], problem.build(), problem)
    momentum = optimizer_of(arms["full_hf"], problem.build(), problem).momentum

    assert (arms["full_hf"]["momentum"], arms["block_hf"]["momentum"]) == (
        {"type": "quadratic"}, {"type": "quadratic"}
    )  # fmt: skip
    assert momentum == QuadraticMomentum()
    assert spec.arms["full_hf"]["momentum"] is None
    assert without.momentum is None
    ids = [[cell.run_id for cell in planned(*change).cells] for change in NO_MOMENTUM]
    assert ids[0] == ids[1]
    with pytest.raises(SpecError, match=naming("acceptance", "full_step")):
        check_spec(parse(changed(("partition: full", "acceptance: null"))))


def test_lists_become_tuples_for_torch():
    """`betas: [0.8, 0.9]` reaches Adam as a pair."""
    spec = check_spec(parse(changed(("lr: 3.0e-3", "betas: [0.8, 0.9]"))))
    problem = problem_of(spec.problem)

    adam = optimizer_of(spec.arms["adam"], problem.build(), problem)

    assert adam.param_groups[0]["betas"] == (0.8, 0.9)


def test_every_part_of_the_catalogue_says_what_it_is():
    """`bdhf list` has a line for every problem, part and optimizer."""
    lines = [line for parts in catalogue().values() for line in parts.values()]

    assert all(lines)
    assert {"problem", "curvature", "partition", "solver", "init"} <= set(catalogue())

"""Specs: everything that is wrong is told before anything is run."""

import pytest
import torch

from bdhf.experiments.build import (
    catalogue,
    optimizer_of,
    problem_of,
)
from bdhf.experiments.errors import SpecError
from bdhf.experiments.resolving import resolve_arm, resolve_problem
from bdhf.experiments.source import parse
from bdhf.experiments.spec import check
from bdhf.optim import BlockHessianFree
from tests.experiments.specs import SMALL, changed

FAULTS = {
    "unknown key": ("seeds:", "seedz:", "10:1: seedz: unknown key 'seedz'", "'seeds'?"),
    "missing key": ("seeds: {count: 2}\n", "", "1:1: missing key 'seeds'", ""),
    "missing inner key": ("{count: 2}", "{base: 1}", "10:8: seeds: missing key 'count'", ""),
    "wrong type": ("count: 2", "count: two", "10:16: seeds.count: input should be", "'two'"),
    "text for a number": ("count: 2", "count: '2'", "10:16: seeds.count: input should be", "'2'"),
    "schema": ("schema: 1", "schema: 7", "1:9: schema: input should be 1", "got 7"),
    "name": ("name: small", "name: a/b", "2:7: name: 'a/b' is no name", "letters"),
    "problem": ("autoencoder", "autoencodr", "3:17: problem.type: unknown problem", "encoder'?"),
    "problem key": ("encoder: [", "encodr: [", "3:30: problem.encodr: unknown key", "'encoder'?"),
    "problem value": ("[784, 12, 4]", "[99, 4]", "3:39: problem.encoder: encoder [99", "784"),
    "gradient": ("gradient: 200", "gradient: 9000", "4:19: batch.gradient: 9000 exceeds", "3500"),
    "curvature": ("curvature: 50", "curvature: 201", "4:35: batch.curvature: 201 is not", "200"),
    "share": ("curvature: 50", "curvature: 50.5", "4:35: batch.curvature: 50.5 is neither", ""),
    "no sample": ("curvature: 50", "curvature: 1e-4", "4:35: batch.curvature: 0.0001 is", ""),
    "optimizer": ("torch.Adam", "torch.Adm", "6:16: arms.adam.type: unknown optimizer", "Adam'?"),
    "torch key": ("lr: 3.0e-3", "lrr: 3e-3", "6:28: arms.adam.lrr: unknown key", "'lr'?"),
    "torch value": ("lr: 3.0e-3", "lr: -1", "6:32: arms.adam.lr: torch.Adam refuses", "-1"),
    "torch text": ("lr: 3.0e-3", "lr: fast", "6:32: arms.adam.lr: lr must be a number", "'fast'"),
    "torch truth": ("lr: 3.0e-3", "amsgrad: no", "6:37: arms.adam.amsgrad: amsgrad must be", "or"),
    "torch null": ("lr: 3.0e-3", "lr: null", "6:32: arms.adam.lr: lr must be a number", "None"),
    "torch NaN": ("lr: 3.0e-3", "lr: .nan", "6:32: arms.adam.lr: nan is not a finite", ""),
    "part": ("partition: full", "partition: ful", "7:44: arms.full_hf.partition: unknown", "full'"),
    "part key": ("max_iters: 5", "maxiters: 5", "8:36: arms.full_hf.solver.maxiters", "max_iters'"),
    "part type": ("max_iters: 5", "max_iters: 5.5", "8:47: arms.full_hf.solver.max_iters", "5.5"),
    "part value": ("max_iters: 5", "max_iters: 0", "8:47: arms.full_hf.solver.max_iters", "least"),
    "hf key": ("lr: 0.5", "rate: 0.5", "7:50: arms.full_hf.rate: unknown key of block_hf", "lr"),
    "hf lr": ("lr: 0.5", "lr: 0", "7:54: arms.full_hf.lr: lr must be a number above 0", ""),
    "damping": ("damping: 1.0e-2", "damping: -1", "7:68: arms.full_hf.damping", "at least 0"),
    "left out": ('["decoder.*"]', '["decoder.0.*"]', "9:34: arms.block_hf.partition", "decoder.2"),
    "twice": ('["decoder.*"]', '["*"]', "9:34: arms.block_hf.partition: parameter", "'*'"),
    "budgets": ("updates: 6", "updates: 6, epochs: 1", "11:9: budget: name exactly one", ""),
    "products": ("updates: 6", "products: 6", "11:20: budget.products: arm 'adam' takes no", ""),
    "stop": ("at_budget", "at_budgt", "12:7: stop: input should be 'at_target'", "at_budgt"),
    "metric": ("val_loss", "val_los", "14:20: targets.0.metric: unknown metric", "'val_loss'?"),
    "test metric": ("val_loss", "test_loss", "14:20: targets.0.metric: unknown metric", "val_"),
    "arm": ("baseline: full_hf", "baseline: fullhf", "16:58: compare.0.baseline: unknown arm", ""),
    "whole or one": ("curvature: 50", "curvature: 1.0", "4:35: batch.curvature: 1 could mean", ""),
    "bool for a number": ("lr: 3.0e-3", "lr: true", "6:32: arms.adam.lr: lr must be a number", ""),
    "which value": ("lr: 3.0e-3", "weight_decay: 1, lr: -1", "6:49: arms.adam.lr: torch.Ad", "-1"),
    "wrong model": ("torch.Adam, lr: 3.0e-3", "torch.Muon", "6:9: arms.adam: torch.Muon ref", "2D"),
    "huge": ("[784, 12, 4]", "[784, 99999999999999, 4]", "7:44: arms.full_hf.partition: ", ""),
    "overflow": ("[784, 12, 4]", "[784, 4611686018427387904, 4]", "6:9: arms.adam: torch.Adam", ""),
    "too large": ("lr: 3.0e-3", "lr: 1" + "0" * 400, "6:32: arms.adam.lr: the number is too", ""),
    "key": ("  adam:", "  1: {type: block_hf}\n  adam:", "6:3: arms.1: a key is text", '"1"'),
    "sparse": ("torch.Adam, lr: 3.0e-3", "torch.SparseAdam", "6:9: arms.adam: torch.SparseAdam "
               "cannot update here", "dense gradients"),
    "capturable": ("lr: 3.0e-3", "lr: 3.0e-3, capturable: true", "6:52: arms.adam.capturable: ",
                   "torch.Adam cannot update here: "),
    "differentiable": ("lr: 3.0e-3", "weight_decay: 0.1, differentiable: true",
                       "6:63: arms.adam.differentiable: ", "torch.Adam cannot update here: "),
    "a number for a list": ("lr: 3.0e-3", "betas: 0.9", "6:35: arms.adam.betas: betas must be a "
                            "list of 2 values, as [0.9, 0.999] is; got 0.9", ""),
    "one of two": ("lr: 3.0e-3", "betas: [0.9]", "6:35: arms.adam.betas: betas must be a list", ""),
    "twice the target": ("08}]", "08}, {metric: val_loss, below: 0.08}]", "14:44: targets.1", ""),
    "itself": ("baseline: full_hf", "baseline: block_hf", "16:5: compare.0: compares", "itself"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_with_place_and_remedy(fault):
    """Every fault names file, line, column and key, and what is allowed or near."""
    old, new, start, mention = FAULTS[fault]

    with pytest.raises(SpecError) as found:
        check(parse(changed((old, new)), "spec.yaml"))

    matching = [line for line in found.value.lines if line.startswith(f"spec.yaml:{start}")]
    assert matching, found.value.lines
    assert mention in matching[0]


def test_faults_of_different_arms_are_told_together():
    """One reading of the file finds every fault of the arms."""
    text = changed(("lr: 3.0e-3", "lr: -1"), ('["decoder.*"]', '["decodr.*"]'))

    with pytest.raises(SpecError) as found:
        check(parse(text))

    assert [line.split(": ")[1] for line in found.value.lines] == [
        "arms.adam.lr",
        "arms.block_hf.partition",
    ]


def test_targets_are_needed_to_stop_at_them_or_to_compare():
    """A comparison of costs to target without a target is refused, and so is stopping at it."""
    line = "targets: [{metric: val_loss, below: 0.08}]\n"

    with pytest.raises(SpecError, match="at_target needs `targets`"):
        check(parse(changed((line, ""), ("at_budget", "at_target"))))
    with pytest.raises(SpecError, match="a comparison of costs to target needs"):
        check(parse(changed((line, ""))))


@pytest.mark.parametrize("text", ["", "- 1", "3", "text"])
def test_a_file_that_is_no_mapping_is_refused(text):
    """Whatever YAML gives, a spec is a mapping."""
    with pytest.raises(SpecError, match="a spec is a mapping"):
        check(parse(text))


def test_defaults_are_written_out():
    """A part given by name is resolved to its type and every argument."""
    arm = check(parse(SMALL)).arms["full_hf"]

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
    }


def test_groups_alone_are_the_blocks_of_the_problem():
    """`partition: groups` takes the problem's own blocks: encoder and decoder."""
    arm = check(parse(changed(("partition: full", "partition: groups")))).arms["full_hf"]

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
    "initialisation": ("autoencoder,", "autoencoder, init: {type: sparse, connections: 15},"),
}


@pytest.mark.parametrize("inside", INSIDE)
def test_parts_inside_parts_are_resolved_and_built(inside):
    """A part in a part is written out whole, is built, and resolves to itself."""
    spec = check(parse(changed(INSIDE[inside])))
    problem, arm = problem_of(spec.problem), spec.arms["full_hf"]

    optimizer = optimizer_of(arm, problem.build(), problem)

    assert isinstance(optimizer, BlockHessianFree)
    assert resolve_problem(spec.problem) == spec.problem
    assert resolve_arm("full_hf", arm, problem) == arm


def test_arms_are_built_as_they_are_written():
    """The optimizers of a spec have the parts and numbers that it gives them."""
    spec = check(parse(changed(("{type: torch.Adam, lr: 3.0e-3}", "torch.LBFGS"))))
    problem = problem_of(spec.problem)
    model = problem.build()

    built = {name: optimizer_of(arm, model, problem) for name, arm in spec.arms.items()}

    assert isinstance(built["adam"], torch.optim.LBFGS)
    block_hf = built["block_hf"]
    assert isinstance(block_hf, BlockHessianFree)
    assert len(block_hf.blocks.rows) == 2
    assert [group["lr"] for group in block_hf.param_groups] == [0.5, 0.5]
    assert block_hf.solver.max_iters == 5


def test_lists_become_tuples_for_torch():
    """`betas: [0.8, 0.9]` reaches Adam as the pair that it wants."""
    spec = check(parse(changed(("lr: 3.0e-3", "betas: [0.8, 0.9]"))))
    problem = problem_of(spec.problem)

    adam = optimizer_of(spec.arms["adam"], problem.build(), problem)

    assert adam.param_groups[0]["betas"] == (0.8, 0.9)


def test_every_part_of_the_catalogue_says_what_it_is():
    """`bdhf list` has a line for every problem, part and optimizer."""
    lines = [line for parts in catalogue().values() for line in parts.values()]

    assert all(lines)
    assert {"problem", "curvature", "partition", "solver", "init"} <= set(catalogue())

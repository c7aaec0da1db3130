"""Levenberg-Marquardt damping: its rule, and the ratio that it gets."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bdhf
from bdhf.optim import LevenbergMarquardt
from bdhf.optim.update.damping import LIMITS
from tests.cases import build
from tests.messages import naming
from tests.optim.optimizers import EXACT, optimizer_of, regression
from tests.oracles import blocked, dense_ggn, dense_gradient, flat_parameters


@pytest.mark.parametrize(
    ("ratio", "factor"),
    [
        (-math.inf, 1.5),
        (-3.0, 1.5),
        (0.0, 1.5),
        (0.2499, 1.5),
        (0.25, 1.0),
        (0.5, 1.0),
        (0.75, 1.0),
        (0.7501, 2 / 3),
        (1.0, 2 / 3),
        (math.inf, 2 / 3),
        (math.nan, 1.5),
    ],
)
def test_the_rule_is_martens(ratio, factor):
    """× 3/2 below ¼ and where the ratio is no number, × 2/3 above ¾, unchanged between."""
    assert LevenbergMarquardt().update(0.3, ratio) == pytest.approx(0.3 * factor)


def test_damping_stays_within_its_limits():
    """However often λ changes in one direction, it is neither 0 nor infinite, and returns."""
    rule, low, high = LevenbergMarquardt(), 1.0, 1.0
    for _ in range(200):
        low, high = rule.update(low, 1.0), rule.update(high, 0.0)

    assert (low, high) == LIMITS
    assert rule.update(low, 0.0) > low
    assert rule.update(high, 1.0) < high


@pytest.mark.parametrize("initial", [0.0, -1.0, math.nan, math.inf])
def test_an_initial_damping_that_is_not_positive_is_an_error(initial):
    """A factor never leads away from 0."""
    with pytest.raises(ValueError, match=naming("LevenbergMarquardt", "initial", 0)):
        LevenbergMarquardt(initial)


class Recorded:
    """A rule that records every ratio, and does not change λ."""

    def __init__(self, per_block, initial=0.05):
        self.per_block, self.initial, self.ratios = per_block, initial, []

    def update(self, damping, reduction_ratio):
        self.ratios.append(reduction_ratio)
        return damping


@pytest.mark.parametrize("partition", ["per_layer", "per_neuron", "groups"])
@pytest.mark.parametrize("samples", [4, 7])
def test_the_ratio_of_a_group_is_that_of_its_own_step(partition, samples):
    """Actual change of the group's step alone ÷ gᵀs + ½ sᵀG_bb s over its blocks."""
    case = build("mlp")
    rule = Recorded(per_block=True)
    solver = bdhf.CG(max_iters=3, tol=0)
    optimizer = optimizer_of(case, partition, solver=solver, damping=rule, lr=0.6)
    for index, group in enumerate(optimizer.param_groups):
        group["lr"] = 0.6 + 0.2 * index
    subset = tuple(part[:samples] for part in case.batch)  # of the curvature
    small = type(case)(case.model, case.loss_fn, subset)
    matrix, gradient = blocked(dense_ggn(small), optimizer.blocks), dense_gradient(case)
    before = flat_parameters(case)

    optimizer.step(case.batch, subset)

    step = flat_parameters(case) - before
    parameters = dict(case.model.named_parameters())
    names, sizes = list(parameters), [p.numel() for p in parameters.values()]

    def loss_at(theta):
        with torch.no_grad():
            for parameter, part in zip(parameters.values(), theta.split(sizes), strict=True):
                parameter.copy_(part.view_as(parameter))
            return case.loss_fn(case.model(subset[0]), subset[1]).item()

    expected = []
    for group in optimizer.param_groups:
        own = torch.cat(
            [
                part if name in group["names"] else 0 * part
                for name, part in zip(names, step.split(sizes), strict=True)
            ]
        )
        predicted = (gradient @ own + 0.5 * own @ matrix @ own).item()
        expected.append((loss_at(before + own) - loss_at(before)) / predicted)
    assert len(expected) > 1
    assert rule.ratios == pytest.approx(expected)


def test_without_per_block_every_group_gets_the_ratio_of_the_whole_step():
    """One ratio, that of the info."""
    case = build("mlp")
    rule = Recorded(per_block=False)

    info = optimizer_of(case, damping=rule).step(case.batch)

    assert rule.ratios == [info.reduction_ratio] * 3


def test_asking_for_the_ratios_of_the_groups_does_not_change_the_step():
    """Parameters and info are those of a rule that does not ask, but for the work."""
    asked, plain = build("mlp"), build("mlp")

    by_block = optimizer_of(asked, damping=Recorded(per_block=True)).step(asked.batch)
    two = optimizer_of(plain, damping=Recorded(per_block=False)).step(plain.batch)

    assert torch.equal(flat_parameters(asked), flat_parameters(plain))
    assert by_block.reduction_ratio == two.reduction_ratio
    assert by_block.gradient_equivalents > two.gradient_equivalents


def least_squares():
    """A linear model, for which the quadratic model is exact, with its batch."""
    draws = torch.Generator().manual_seed(0)
    batch = tuple(torch.randn(20, n, generator=draws, dtype=torch.float64) for n in (4, 2))
    model = nn.Linear(4, 2).double()
    bdhf.nn.Glorot()(model, draws)
    return model, batch


@pytest.mark.parametrize("per_block", [False, True])
def test_damping_goes_down_where_the_model_is_exact(per_block):
    """On least squares with one block ρ is 1 at every step, and λ shrinks by 2/3 each time."""
    model, batch = least_squares()
    optimizer = bdhf.BlockHessianFree(
        model,
        F.mse_loss,
        partition=bdhf.Full(),
        solver=EXACT,
        damping=LevenbergMarquardt(1.0, per_block),
        lr=1.0,
    )

    infos = [optimizer.step(batch) for _ in range(4)]

    assert [info.reduction_ratio for info in infos] == pytest.approx([1.0] * 4)
    assert [info.damping[0] for info in infos] == pytest.approx([(2 / 3) ** i for i in range(4)])
    assert optimizer.param_groups[0]["damping"] == pytest.approx((2 / 3) ** 4)


@pytest.mark.parametrize("per_block", [False, True])
def test_damping_goes_up_where_the_model_is_bad(per_block):
    """Far out on log cosh the curvature promises a long step, and the loss rises."""
    model = nn.Linear(1, 1).double()
    with torch.no_grad():
        model.weight.fill_(3.0)

    def log_cosh(outputs, targets):
        return (outputs - targets).cosh().log().mean()

    optimizer = bdhf.BlockHessianFree(
        model, log_cosh, solver=EXACT, damping=LevenbergMarquardt(1e-3, per_block), lr=1.0
    )

    info = optimizer.step((torch.ones(2, 1).double(), torch.zeros(2, 1).double()))

    assert info.reduction_ratio < 0
    assert optimizer.param_groups[0]["damping"] == pytest.approx(1.5e-3)


def test_damping_goes_up_after_a_step_that_is_rejected_or_no_number():
    """A ratio of 0 / 0 is no number: nothing was learnt but that the model was bad."""

    class Reject:
        needs_iterates = False

        def choose(self, trial):
            return trial.last, 0.0

    model, (x, y) = regression()
    optimizer = bdhf.BlockHessianFree(
        model, F.mse_loss, damping=LevenbergMarquardt(1.0), acceptance=Reject()
    )

    rejected = optimizer.step((x, y))
    poisoned = optimizer.step((x, math.nan * y))

    assert math.isnan(rejected.reduction_ratio)
    assert math.isnan(poisoned.reduction_ratio)
    assert rejected.damping == (1.0, 1.0)
    assert poisoned.damping == (1.5, 1.5)
    assert [group["damping"] for group in optimizer.param_groups] == [2.25, 2.25]


def test_groups_go_their_own_ways_with_per_block():
    """Each group's λ follows the ratio of its own step."""
    case = build("mlp")
    rule = Recorded(per_block=True)
    solver = bdhf.CG(max_iters=5, tol=0)
    optimizer_of(case, solver=solver, damping=rule, lr=1.0).step(case.batch)
    twin = build("mlp")
    optimizer = optimizer_of(
        twin, solver=solver, damping=LevenbergMarquardt(0.05, per_block=True), lr=1.0
    )

    optimizer.step(twin.batch)

    expected = [LevenbergMarquardt().update(0.05, ratio) for ratio in rule.ratios]
    assert [group["damping"] for group in optimizer.param_groups] == expected


def test_state_dict_keeps_the_damping():
    """A resumed optimizer continues with the last λ, not with the initial one."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, damping=LevenbergMarquardt(1.0))
    for _ in range(3):
        optimizer.step(batch)
    resumed = bdhf.BlockHessianFree(model, F.mse_loss, damping=LevenbergMarquardt(7.0))

    resumed.load_state_dict(optimizer.state_dict())

    reached = [group["damping"] for group in optimizer.param_groups]
    assert [group["damping"] for group in resumed.param_groups] == reached
    assert reached != [1.0, 1.0]
    assert resumed.step(batch).damping == tuple(reached)

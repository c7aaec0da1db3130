"""Runs with the Hessian, which is indefinite: negative curvature is met, reported, and survived."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import bdhf
from bdhf.optim import CurvatureWarning, Stop
from tests.cases import Case, build
from tests.messages import naming
from tests.optim.optimizers import optimizer_of
from tests.oracles import dense_gradient, dense_hessian, flat_parameters

SHAPE = torch.tensor([4.0, 1.0, -0.5], dtype=torch.float64)  # curvature at the origin


def valley(*point: float) -> Case:
    """Three parameters θ with the loss ½ Σ shape_i θ_i² + ¼ θ_3⁴: a saddle at 0, two minima."""
    model = nn.Linear(1, 3, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor(point, dtype=torch.float64)[:, None])

    def loss_fn(outputs, targets):
        return (0.5 * SHAPE * outputs**2).sum() + 0.25 * outputs[:, 2].pow(4).sum()

    unit = torch.ones(1, 1, dtype=torch.float64)
    return Case(model, loss_fn, (unit, unit), recognised=False)


LOWEST = -1 / 16  # at (0, 0, ±√½)


def hessian_hf(case, damping=0.05, **parts):
    """Full HF with the Hessian, by CG."""
    parts = {"solver": bdhf.CG(), "lr": 1.0, **parts}
    return optimizer_of(
        case, "full", curvature=bdhf.Hessian(), damping=bdhf.Constant(damping), **parts
    )


def test_the_first_direction_may_be_of_negative_curvature():
    """From zero the step is -g / (|gᵀ(H + λ)g| / gᵀg + λ): bounded, downhill, and reported."""
    case = valley(0.0, 0.01, 0.1)
    gradient, before = dense_gradient(case), flat_parameters(case)
    damped = dense_hessian(case) + 0.05 * torch.eye(3, dtype=torch.float64)
    curvature = gradient @ damped @ gradient
    assert curvature < 0

    info = hessian_hf(case).step(case.batch)

    length = 1 / (curvature.abs() / (gradient @ gradient) + 0.05)
    assert info.stop == (Stop.NEGATIVE_CURVATURE,)
    assert info.cg_iterations == (1,)
    assert_close(flat_parameters(case) - before, -length * gradient)
    assert hessian_hf(case).step(case.batch).loss < info.loss


def test_a_later_direction_may_be_of_negative_curvature():
    """The iterate before it is the step: downhill, and reported."""
    case = valley(-0.25, -1.0, 0.1)
    first = hessian_hf(valley(-0.25, -1.0, 0.1), solver=bdhf.CG(max_iters=1))

    info = hessian_hf(case).step(case.batch)

    assert info.stop == (Stop.NEGATIVE_CURVATURE,)
    assert 1 <= info.cg_iterations[0] < 3
    assert info.products == info.cg_iterations[0] + 1
    assert hessian_hf(case).step(case.batch).loss < info.loss
    assert first.step(case.batch).stop == (Stop.MAX_ITERS,)


@pytest.mark.parametrize("point", [(0.0, 0.01, 0.1), (-0.25, -1.0, 0.1)])
def test_a_warm_start_that_meets_it_keeps_what_lies_below_zero(point):
    """The second update starts at ζ · d: what it keeps of that is finite, and reported."""
    case = valley(*point)
    optimizer = hessian_hf(case, lr=0.05, solver=bdhf.CG(warm_start=0.5))
    optimizer.step(case.batch)
    start, before = optimizer._carried.start(), flat_parameters(case)
    gradient = dense_gradient(case)
    damped = dense_hessian(case) + 0.05 * torch.eye(3, dtype=torch.float64)
    residual = -gradient - damped @ start

    info = optimizer.step(case.batch)

    assert info.stop == (Stop.NEGATIVE_CURVATURE,)
    model = 0.5 * start @ damped @ start + gradient @ start
    if residual @ damped @ residual <= 0:  # at once
        assert model < 0
        assert_close(flat_parameters(case) - before, 0.05 * start)
    else:
        assert 1 <= info.cg_iterations[0] < 3
        assert (flat_parameters(case) - before) @ gradient < 0


STARTS = [(0.0, 0.01, 0.1), (-0.25, -1.0, 0.1), (1.0, 1.0, 1e-3)]


@pytest.mark.parametrize("point", STARTS)
@pytest.mark.parametrize("warm_start", [0.0, 0.95])
@pytest.mark.parametrize(
    "damping", [bdhf.Constant(0.05), bdhf.LevenbergMarquardt(0.1)], ids=["constant", "lm"]
)
def test_thirty_updates_leave_the_saddle_for_a_minimum(point, warm_start, damping):
    """Negative curvature is met on the way, and the run ends at the lowest loss, cold or warm."""
    case = valley(*point)
    optimizer = bdhf.BlockHessianFree(
        case.model,
        case.loss_fn,
        curvature=bdhf.Hessian(),
        solver=bdhf.CG(warm_start=warm_start),
        damping=damping,
        lr=0.5,
    )

    infos = [optimizer.step(case.batch) for _ in range(30)]

    assert any(info.stop == (Stop.NEGATIVE_CURVATURE,) for info in infos)
    assert infos[-1].loss == pytest.approx(LOWEST, abs=1e-3)


@pytest.mark.parametrize("warm_start", [0.0, 0.5, 0.95, 1.0])
def test_a_warm_start_does_not_hold_a_run_at_a_saddle(warm_start):
    """Where every first direction is of negative curvature, steps grow, and reach the minimum."""
    case = valley(0.0, 0.0, 1e-3)
    optimizer = hessian_hf(case, lr=0.5, solver=bdhf.CG(warm_start=warm_start))

    infos = [optimizer.step(case.batch) for _ in range(60)]

    assert [info.stop for info in infos[:3]] == [(Stop.NEGATIVE_CURVATURE,)] * 3
    assert infos[-1].grad_norm < 1e-3
    assert infos[-1].loss == pytest.approx(LOWEST, abs=1e-4)


MODELS = ["mlp", "classifier", "tied", "lstm"]


def trained(case, partition, solver, damping):
    """The infos of thirty updates with the Hessian at lr 0.3."""
    optimizer = optimizer_of(
        case,
        partition,
        curvature=bdhf.Hessian(),
        solver=solver,
        damping=bdhf.Constant(damping),
        lr=0.3,
    )
    return [optimizer.step(case.batch) for _ in range(30)]


@pytest.mark.parametrize("case", ["mlp", "classifier", "lstm"])
@pytest.mark.parametrize("partition", ["full", "per_layer"])
@pytest.mark.parametrize("warm_start", [0.0, 0.95])
def test_models_get_better_under_the_hessian_with_enough_damping(case, partition, warm_start):
    """Thirty updates with λ 1: no loss is above the first, and the last is below it."""
    case = build(case)

    losses = [info.loss for info in trained(case, partition, bdhf.CG(warm_start=warm_start), 1.0)]

    assert flat_parameters(case).isfinite().all()
    assert max(losses) == losses[0] > losses[-1]


@pytest.mark.parametrize("case", ["mlp", "tied"])
@pytest.mark.parametrize("solver", [bdhf.CG(), bdhf.CG(warm_start=0.0), bdhf.Cholesky()])
def test_models_meet_negative_curvature_and_say_so(case, solver):
    """A block that met it has that stop; others have their own."""
    case = build(case)
    stops = [info.stop for info in trained(case, "full", solver, 0.5)]

    met = [stop == (Stop.NEGATIVE_CURVATURE,) for stop in stops]
    assert any(met)
    assert not all(met)


@pytest.mark.parametrize("case", ["mlp", "classifier", "tied"])
@pytest.mark.parametrize("partition", ["full", "per_layer"])
@pytest.mark.parametrize("solver", [bdhf.CG(), bdhf.CG(warm_start=0.0), bdhf.Cholesky()])
def test_no_rise_of_the_loss_is_silent(case, partition, solver):
    """With too little damping a step may be far too long: finite, and no ratio above 0 hides it."""
    case = build(case)

    infos = trained(case, partition, solver, 1e-3)

    assert flat_parameters(case).isfinite().all()
    for info, after in pairwise(infos):
        assert math.isfinite(after.loss)
        assert after.loss <= info.loss or not info.reduction_ratio > 0


@pytest.mark.parametrize("case", [*MODELS, *STARTS])
@pytest.mark.parametrize("warm_start", [0.0, 0.95])
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_with_backtracking_the_loss_never_rises(case, warm_start, damping):
    """Every update ends at or below where it began, with damping and with none."""
    case = build(case) if isinstance(case, str) else valley(*case)
    optimizer = hessian_hf(
        case, damping, solver=bdhf.CG(warm_start=warm_start), acceptance=bdhf.Backtracking()
    )

    losses = [optimizer.step(case.batch).loss for _ in range(12)]

    assert all(after <= before for before, after in pairwise(losses))
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_at_a_maximum_without_a_gradient_nothing_moves(damping):
    """Where g is 0 there is no direction: the stop is "converged", and nothing is raised."""
    case = valley(0.0, 0.0, 0.0)

    info = hessian_hf(case, damping).step(case.batch)

    assert info.stop == (Stop.CONVERGED,)
    assert torch.equal(flat_parameters(case), torch.zeros(3, dtype=torch.float64))


def test_a_flat_direction_without_damping_moves_nothing():
    """A loss that is linear in θ does not bound a step: none is taken, after a warning."""
    case = valley(1.0, 1.0, 1.0)
    case = replace(case, loss_fn=lambda outputs, targets: outputs.sum() + 0 * outputs.pow(2).sum())
    before = flat_parameters(case)

    with pytest.warns(CurvatureWarning, match=naming(0, "damping")):
        info = hessian_hf(case, damping=0.0).step(case.batch)

    assert info.stop[0] in (Stop.NEGATIVE_CURVATURE, Stop.NONFINITE)
    assert torch.equal(flat_parameters(case), before)

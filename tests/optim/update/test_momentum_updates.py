"""Momentum in whole updates: its state, its cost, acceptance and damping."""

import copy
import math
import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import ModelError, QuadraticMomentum, estimate
from bdhf.optim.products import linearise
from tests.cases import build
from tests.messages import naming
from tests.optim.optimizers import optimizer_of, regression
from tests.oracles import blocked, dense_ggn, dense_gradient, flat_parameters


def with_momentum(model, **parts):
    """Block HF with momentum on a small regression."""
    return bdhf.BlockHessianFree(model, F.mse_loss, momentum=QuadraticMomentum(), **parts)


@dataclass(frozen=True)
class Take:
    """Takes an iterate, counted from the last one, by a factor."""

    back: int
    factor: float
    needs_iterates = True

    def choose(self, trial):
        return trial.last - self.back, self.factor


def test_the_state_continues_bit_exactly(tmp_path):
    """Saved, loaded into a new optimizer and continued, infos and parameters are the same bits."""
    model, batch = regression()
    optimizer = with_momentum(model, acceptance=bdhf.Backtracking())
    for _ in range(3):
        optimizer.step(batch)
    twin = copy.deepcopy(model)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = with_momentum(twin, acceptance=bdhf.Backtracking())

    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    infos = [(optimizer.step(batch), resumed.step(batch)) for _ in range(3)]

    assert all(info == other for info, other in infos)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_continues_like_the_original(copied):
    """A model copied together with its optimizer takes the same updates."""
    model, batch = regression()
    optimizer = with_momentum(model)
    optimizer.step(batch)

    _, other = copied((model, optimizer))

    for _ in range(2):
        assert optimizer.step(batch) == other.step(batch)


@pytest.mark.parametrize("partition", ["full", "per_layer", "thirds"])
@pytest.mark.parametrize("factor", [1.0, 0.3, 0.0])
def test_the_last_step_is_what_was_applied(partition, factor):
    """δ = θ_k - θ_{k-1}, with lr, factor and the iterate that was accepted; 0 if rejected."""
    case = build("mlp")
    parts = {"acceptance": Take(1, factor), "solver": bdhf.CG(max_iters=8, tol=0), "lr": 0.7}
    optimizer = optimizer_of(case, partition, momentum=QuadraticMomentum(), **parts)
    optimizer.step(case.batch)
    before = flat_parameters(case)

    optimizer.step(case.batch)

    step = flat_parameters(case) - before
    assert_close(optimizer.blocks.scatter(optimizer._carried.last_step()), step)
    assert bool(step.any()) == (factor > 0)


def test_the_next_solve_starts_at_the_solvers_own_direction():
    """The first direction is scaled by momentum; ζ times the unscaled one is the warm start."""
    case, twin = build("mlp"), build("mlp")
    parts = {"solver": bdhf.CG(max_iters=2, tol=0, warm_start=0.5)}
    optimizer = optimizer_of(case, momentum=QuadraticMomentum(), **parts)
    plain = optimizer_of(twin, **parts)

    optimizer.step(case.batch)
    plain.step(twin.batch)

    assert_close(optimizer._carried.start(), plain._carried.start())


def test_without_momentum_the_state_has_no_step():
    """Its keys are those from before there was momentum, also after the state of one with it."""
    model, batch = regression()
    optimizer, plain = with_momentum(model), bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step(batch)
    keys = set(optimizer.state_dict()["state"][0])
    plain.load_state_dict(optimizer.state_dict())

    plain.step(batch)

    assert keys == {"direction", "step", "last_step"}
    assert set(plain.state_dict()["state"][0]) == {"direction", "step"}


def test_the_state_of_an_optimizer_without_momentum_continues_as_a_first_update():
    """There is no last step in it: the update is that of the state without one."""
    model, batch = regression()
    plain = bdhf.BlockHessianFree(model, F.mse_loss)
    plain.step(batch)
    optimizer, scaled = with_momentum(model), bdhf.BlockHessianFree(model, F.mse_loss)
    for other in (optimizer, scaled):
        other.load_state_dict(plain.state_dict())

    products = [optimizer.step(batch).products for _ in range(2)]

    assert products[0] == scaled.step(batch).products
    assert optimizer._carried.last_step().any()


def test_the_step_of_a_model_of_other_shapes_is_refused():
    """The error names the parameter, with both shapes."""
    optimizers = []
    for width in (5, 6):
        model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))
        optimizers.append(with_momentum(model, solver=bdhf.Cholesky()))
        optimizers[-1].step((torch.randn(8, 4), torch.randn(8, 3)))
    optimizers[1].load_state_dict(optimizers[0].state_dict())

    with pytest.raises(ModelError, match=naming("'0.weight'", "(5, 4)", "(6, 4)", "last step")):
        optimizers[1].step((torch.randn(8, 4), torch.randn(8, 3)))


def test_an_exception_leaves_the_last_step_as_it_was():
    """`watch` is called before the product of momentum too, which comes last."""
    model, batch = regression()
    optimizer = with_momentum(model, solver=bdhf.CG(max_iters=2, tol=0, warm_start=0.0))
    optimizer.step(batch)
    before, calls = optimizer._carried.last_step().clone(), []

    def watch():
        calls.append(len(calls))
        if len(calls) == 3:
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        optimizer.step(batch, watch=watch)

    assert torch.equal(optimizer._carried.last_step(), before)


def test_a_loss_that_is_not_finite_moves_nothing_and_ends_the_momentum():
    """No step along δ either; the next update is that of a fresh optimizer."""
    model, (x, y) = regression()
    optimizer = with_momentum(model)
    optimizer.step((x, y))
    before = [p.detach().clone() for p in model.parameters()]

    optimizer.step((x, math.nan * y))

    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    twin = copy.deepcopy(model)
    assert optimizer.step((x, y)) == with_momentum(twin).step((x, y))


def test_its_product_is_counted_in_products_and_in_gradients():
    """From the second update on: one more of each block, at the cost of a product."""
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Tanh(), nn.Linear(16, 4, bias=False))
    batch = (torch.randn(32, 8), torch.randn(32, 4))
    solver = bdhf.CG(max_iters=3, tol=0, warm_start=0.0)
    optimizer = with_momentum(model, partition=bdhf.Full(), solver=solver)
    first, second = 8 * 16, 16 * 4
    gradient = 2 * first + 3 * second  # no gradient for the inputs
    product = 2 * (first + 2 * second)

    start, later = optimizer.step(batch), optimizer.step(batch)

    assert (start.products, later.products) == (3.0, 4.0)
    extra = later.gradient_equivalents - start.gradient_equivalents
    assert extra == pytest.approx(product / gradient)


def test_the_method_of_products_is_chosen_for_one_product_more(monkeypatch):
    """`auto` compares the methods over the products of the solver and of momentum."""
    seen = []

    def recorded(*arguments, products, **settings):
        seen.append(products)
        return linearise(*arguments, products=products, **settings)

    monkeypatch.setattr("bdhf.optim.optimizer.linearise", recorded)
    for momentum in (None, QuadraticMomentum()):
        model, batch = regression()
        bdhf.BlockHessianFree(model, F.mse_loss, momentum=momentum, check=False).step(batch)

    assert seen[1] == seen[0] + 1


@pytest.mark.parametrize("solver", [bdhf.CG(max_iters=5), bdhf.Cholesky()])
def test_the_estimate_has_one_product_more(solver):
    """By the cost of one more iteration of CG."""
    model, batch = regression()
    two, three = (
        estimate(bdhf.BlockHessianFree(model, F.mse_loss, solver=bdhf.CG(n)), batch,
                 gradient_batch=100, curvature_batch=50)
        for n in (2, 3)
    )  # fmt: skip
    sizes = {"gradient_batch": 100, "curvature_batch": 50}
    plain = estimate(bdhf.BlockHessianFree(model, F.mse_loss, solver=solver), batch, **sizes)

    more = estimate(with_momentum(model, solver=solver), batch, **sizes)

    assert more - plain == pytest.approx(three - two)


@pytest.mark.parametrize("back", [0, 1])
@pytest.mark.parametrize("partition", ["per_layer", "thirds"])
def test_the_reduction_ratio_is_of_the_step_that_was_applied(partition, back):
    """ρ divides by Σ_b gᵀs + ½ sᵀG_bb s at t · lr_b of the combined iterate."""
    case = build("classifier")
    optimizer = optimizer_of(
        case, partition, solver=bdhf.CG(max_iters=8, tol=0), lr=0.5, acceptance=Take(back, 0.6),
        momentum=QuadraticMomentum(),
    )  # fmt: skip
    for index, group in enumerate(optimizer.param_groups):
        group["lr"], group["damping"] = 0.3 + 0.2 * index, 0.01 + 0.5 * index
    optimizer.step(case.batch)
    matrix, gradient = blocked(dense_ggn(case), optimizer.blocks), dense_gradient(case)
    before = flat_parameters(case)

    info = optimizer.step(case.batch)

    step = flat_parameters(case) - before
    after = case.loss_fn(case.model(case.batch[0]), case.batch[1]).item()
    predicted = (gradient @ step + 0.5 * step @ matrix @ step).item()
    assert info.reduction_ratio == pytest.approx((after - info.loss) / predicted)


@pytest.mark.parametrize("lr", [1.0, 30.0])
def test_backtracking_obeys_armijo_with_momentum(lr):
    """L(θ + s) ≤ L(θ) + 0.01 gᵀs for the step that was taken, in each of three updates."""
    case = build("mlp")
    optimizer = optimizer_of(
        case, acceptance=bdhf.Backtracking(), lr=lr, momentum=QuadraticMomentum()
    )
    for _ in range(3):
        gradient, before = dense_gradient(case), flat_parameters(case)

        info = optimizer.step(case.batch)

        step = flat_parameters(case) - before
        after = case.loss_fn(case.model(case.batch[0]), case.batch[1]).item()
        assert after <= info.loss + 0.01 * (gradient @ step).item()
        assert info.step_norm > 0


def test_momentum_is_worth_more_than_an_iteration_in_float32():
    """With as many products, one iteration and momentum is below two iterations without."""
    losses = []
    for iterations, momentum in ((2, None), (1, QuadraticMomentum())):
        model, batch = regression()
        optimizer = bdhf.BlockHessianFree(
            model, F.mse_loss, partition=bdhf.Full(), damping=bdhf.LevenbergMarquardt(0.1), lr=1.0,
            solver=bdhf.CG(max_iters=iterations, tol=0, warm_start=0.0), momentum=momentum,
        )  # fmt: skip
        losses.append([optimizer.step(batch).loss for _ in range(30)][-1])

    assert losses[1] < losses[0]

"""Acceptance: the iterate and the factor that are chosen, and that they are what is applied."""

import math
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import mul

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import Backtracking, FullStep
from tests.cases import build
from tests.messages import naming
from tests.optim.curvatures import CURVATURES
from tests.optim.optimizers import EXACT, optimizer_of, regression
from tests.optim.systems import textbook
from tests.oracles import blocked, dense_ggn, dense_gradient, flat_parameters


@dataclass
class StandIn:
    """A trial with fixed losses: of every iterate at t = 1, and of any factor."""

    losses: list[float]
    start_loss: float = 1.0
    slopes: float | list[float] = -1.0
    at: dict[float, float] = field(default_factory=dict)  # factor -> loss; else that of t = 1
    asked: list[tuple[int, float]] = field(default_factory=list)

    @property
    def last(self):
        return len(self.losses) - 1

    def loss(self, index, factor):
        self.asked.append((index, factor))
        return self.losses[index] if factor == 1 else self.at.get(factor, self.losses[index])

    def slope(self, index):
        return self.slopes[index] if isinstance(self.slopes, list) else self.slopes


@pytest.mark.parametrize(
    ("losses", "index"),
    [
        ([0.5], 0),
        ([0.9, 0.5, 0.3], 2),
        ([0.9, 0.3, 0.5], 1),
        ([0.1, 0.3, 0.5], 0),
        ([0.1, 0.4, 0.3, 0.5], 2),  # the first local minimum from the end
        ([0.5, 0.5], 1),
        ([0.3, math.nan], 0),
        ([0.3, math.nan, math.nan], 0),
        ([0.4, 0.3, math.inf], 1),
        ([0.3, math.nan, 0.5], 2),
    ],
)
def test_backtracking_walks_back_while_the_loss_falls(losses, index):
    """From the answer of CG to earlier iterates, to the first where the loss rises again."""
    assert Backtracking().choose(StandIn(losses)) == (index, 1.0)


def test_every_loss_is_taken_once():
    """Backtracking takes one loss per iterate, the line search one per factor."""
    trial = StandIn([0.9, 0.2, 2.0], at={0.8: 0.9})

    Backtracking().choose(trial)

    assert trial.asked == [(2, 1.0), (1, 1.0), (0, 1.0)]


@pytest.mark.parametrize("tries", [0, 1, 4, 20])
def test_the_factor_shrinks_until_armijo_is_met(tries):
    """The factor is 0.8^k with the first k at which L ≤ L(θ) + 0.01 · t · gᵀs."""
    factors = list(accumulate([1.0] + [0.8] * tries, mul))
    enough = 1.0 - 0.02 * factors[-1] - 1e-12
    trial = StandIn([1.0 if tries else enough], slopes=-2.0, at={factors[-1]: enough})

    assert Backtracking().choose(trial) == (0, factors[-1])
    assert trial.asked == [(0, factor) for factor in factors]


@pytest.mark.parametrize("excess", [-1e-9, 1e-9])
def test_armijo_is_a_bound_on_the_loss(excess):
    """Just below L(θ) + c · gᵀs the whole step is taken, just above it is not."""
    trial = StandIn([1.0 - 0.3 * 2.0 + excess], slopes=-2.0, at={0.5: 0.0})

    assert Backtracking(shrink=0.5, armijo=0.3).choose(trial) == (0, 1.0 if excess < 0 else 0.5)


@pytest.mark.parametrize("loss", [2.0, 1.0, math.nan, math.inf])
def test_a_step_that_never_gets_better_is_rejected_after_the_last_try(loss):
    """After 1 + max_tries losses the factor is 0."""
    trial = StandIn([loss])

    assert Backtracking(max_tries=7).choose(trial) == (0, 0.0)
    assert len(trial.asked) == 1 + 7


@pytest.mark.parametrize("slope", [0.0, 1.0, math.nan])
def test_a_step_that_is_not_downhill_is_rejected(slope):
    """However low the loss: there is no Armijo bound along it."""
    assert Backtracking().choose(StandIn([0.1], slopes=slope)) == (0, 0.0)


def test_the_slope_is_that_of_the_iterate_that_is_chosen():
    """An answer that points uphill does not reject an earlier iterate that does not."""
    assert Backtracking().choose(StandIn([0.2, 0.9], slopes=[-1.0, 1.0])) == (0, 1.0)


@pytest.mark.parametrize(
    "setting", [{"shrink": 1.0}, {"shrink": 0.0}, {"armijo": 1.0}, {"armijo": math.nan}]
)
def test_settings_out_of_range_are_errors(setting):
    """Both are shares, strictly between 0 and 1."""
    with pytest.raises(ValueError, match=naming("Backtracking", next(iter(setting)), 0, 1)):
        Backtracking(**setting)


def test_a_line_search_without_tries_is_an_error():
    """At least one try."""
    with pytest.raises(ValueError, match=naming("Backtracking", "max_tries", 1)):
        Backtracking(max_tries=0)


def test_the_full_step_looks_at_no_loss():
    """The answer, whole."""
    trial = StandIn([0.9, 5.0])

    assert FullStep().choose(trial) == (1, 1.0)
    assert trial.asked == []


@dataclass(frozen=True)
class Pick:
    """Takes a given iterate by a given factor."""

    index: int
    factor: float
    needs_iterates = True

    def choose(self, trial):
        return self.index, self.factor


def full_hf(case, acceptance, max_iters=12, **parts):
    """Full HF on a case with λ 0.01, and the iterates that textbook CG has on its system."""
    solver = bdhf.CG(max_iters=max_iters, tol=0, warm_start=0.5)
    optimizer = optimizer_of(
        case,
        "full",
        solver=solver,
        damping=bdhf.Constant(0.01),
        acceptance=acceptance,
        lr=0.7,
        **parts,
    )
    matrix, gradient = dense_ggn(case), dense_gradient(case)
    damped = matrix + 0.01 * torch.eye(len(matrix), dtype=torch.float64)
    return optimizer, matrix, gradient, [x for x, _ in textbook(damped, -gradient, max_iters)]


@pytest.mark.parametrize(("index", "iteration"), [(0, 5), (1, 7), (3, 11), (4, 12)])
def test_the_iterate_that_is_chosen_is_what_is_applied(index, iteration):
    """Δθ is factor · lr · d_i of the i-th iterate, and ρ is of that step."""
    case = build("mlp")
    optimizer, matrix, gradient, iterates = full_hf(case, Pick(index, 0.6))
    before = flat_parameters(case)

    info = optimizer.step(case.batch)

    step = 0.6 * 0.7 * iterates[iteration - 1]
    after = case.loss_fn(case.model(case.batch[0]), case.batch[1]).item()
    predicted = (gradient @ step + 0.5 * step @ matrix @ step).item()
    assert_close(flat_parameters(case) - before, step)
    assert info.step_size == pytest.approx((0.6 * 0.7,))
    assert info.step_norm == pytest.approx(step.norm().item())
    assert info.reduction_ratio == pytest.approx((after - info.loss) / predicted)
    assert info.cg_iterations == (12,)


def test_the_next_solve_starts_at_the_answer_of_the_solver_not_at_what_was_applied():
    """ζ · d of the last iterate is the warm start, whichever was taken, and how much of it."""
    case = build("mlp")
    optimizer, _, _, iterates = full_hf(case, Pick(0, 0.3))

    optimizer.step(case.batch)

    assert_close(optimizer._carried.start(), 0.5 * iterates[-1])


def test_a_rejected_step_leaves_the_parameters_bit_equal():
    """At t = 0 nothing moves, and the next solve still starts warm."""
    case = build("mlp")
    optimizer, _, _, iterates = full_hf(case, Pick(2, 0.0))
    before = flat_parameters(case)

    info = optimizer.step(case.batch)

    assert torch.equal(flat_parameters(case), before)
    assert info.step_norm == 0
    assert info.step_size == (0.0,)
    assert_close(optimizer._carried.start(), 0.5 * iterates[-1])


def test_a_step_into_losses_that_are_no_number_is_rejected():
    """Where the loss is NaN everywhere but at θ, the parameters stay bit for bit."""
    model, batch = regression()
    start = [p.detach().clone() for p in model.parameters()]

    def loss_fn(outputs, targets):
        moved = any(not torch.equal(p, q) for p, q in zip(model.parameters(), start, strict=True))
        return F.mse_loss(outputs, targets) * (math.nan if moved else 1.0)

    optimizer = bdhf.BlockHessianFree(model, loss_fn, acceptance=Backtracking(), check=False)

    info = optimizer.step(batch)

    assert math.isfinite(info.loss)
    assert info.step_norm == 0
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), start, strict=True))


@pytest.mark.parametrize("lr", [1.0, 30.0])
def test_backtracking_obeys_armijo_on_the_gradient_batch(lr):
    """Applied to a model, L(θ + s) ≤ L(θ) + 0.01 gᵀs, with s the step that was taken."""
    case = build("mlp")
    optimizer = optimizer_of(case, acceptance=Backtracking(), damping=bdhf.Constant(0.01), lr=lr)
    gradient, before = dense_gradient(case), flat_parameters(case)
    subset = tuple(part[:4] for part in case.batch)

    info = optimizer.step(case.batch, subset)

    step = flat_parameters(case) - before
    after = case.loss_fn(case.model(case.batch[0]), case.batch[1]).item()
    assert after <= info.loss + 0.01 * (gradient @ step).item()
    assert info.step_norm > 0
    if lr > 2:
        shrunk = math.log(info.step_size[0] / lr, 0.8)
        assert shrunk == pytest.approx(round(shrunk))
        assert shrunk > 1


def test_cg_backtracking_reaches_back_over_an_answer_at_a_kept_iteration():
    """Where the answer is itself at a kept iteration, the walk still reaches the one before."""
    case = build("mlp")
    iterates = full_hf(case, Backtracking(), max_iters=7)[-1]
    before = flat_parameters(case)
    answer = before + 0.7 * iterates[6]

    def loss_fn(outputs, targets):
        there = bool((flat_parameters(case) - answer).norm() < 1e-9)
        return F.mse_loss(outputs, targets) + 10.0 * there

    optimizer = full_hf(replace(case, loss_fn=loss_fn), Backtracking(), max_iters=7)[0]

    optimizer.step(case.batch)

    assert_close(flat_parameters(case) - before, 0.7 * iterates[4])


class Penalised(nn.Module):
    """A model with √μ θ among its outputs, so that a loss can hold the penalty explicitly."""

    def __init__(self, model, mu):
        super().__init__()
        self.model, self.root = model, mu**0.5

    def forward(self, x):
        z = self.model(x)
        theta = torch.cat([p.reshape(-1) for p in self.model.parameters()])
        return torch.cat([z.reshape(-1), self.root * theta])


@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
@pytest.mark.parametrize("acceptance", [FullStep(), Backtracking()])
def test_l2_is_the_penalty_in_the_loss(curvature, acceptance):
    """½ μ ‖θ‖² by L2 is the same penalty written into model and loss: infos and steps agree."""
    mu, plain, twin = 0.3, build("mlp"), build("mlp")
    count = plain.batch[1].numel()

    def penalised_loss(outputs, targets):
        return F.mse_loss(outputs[:count].view_as(targets), targets) + 0.5 * (
            outputs[count:].square().sum()
        )

    parts = {
        "curvature": CURVATURES[curvature][0],
        "solver": EXACT,
        "damping": bdhf.Constant(1.0),
        "acceptance": acceptance,
        "lr": 0.8,
    }
    penalised = optimizer_of(plain, regularization=bdhf.L2(mu), **parts)
    two = bdhf.BlockHessianFree(Penalised(twin.model, mu), penalised_loss, **parts)

    for _ in range(3):
        info, explicit = penalised.step(plain.batch), two.step(twin.batch)

        assert_close(flat_parameters(plain), flat_parameters(twin), rtol=0, atol=1e-8)
        assert info.loss == pytest.approx(explicit.loss)
        assert info.grad_norm == pytest.approx(explicit.grad_norm)
        assert info.step_norm == pytest.approx(explicit.step_norm)
        assert info.reduction_ratio == pytest.approx(explicit.reduction_ratio)


@pytest.mark.parametrize("partition", ["full", "per_neuron", "blend"])
def test_l2_adds_mu_to_the_diagonal_of_every_curvature(partition):
    """One converged step is -(G + (μ + λ) I)⁻¹ (g + μθ), with the loss ½ μ ‖θ‖² higher."""
    mu, case = 0.3, build("classifier")
    optimizer = optimizer_of(
        case,
        partition,
        solver=EXACT,
        damping=bdhf.Constant(0.05),
        regularization=bdhf.L2(mu),
        lr=1.0,
    )
    before = flat_parameters(case)
    matrix = blocked(dense_ggn(case), optimizer.blocks)
    eye = torch.eye(len(matrix), dtype=torch.float64)
    gradient = dense_gradient(case) + mu * before
    step = torch.linalg.solve(matrix + (mu + 0.05) * eye, -gradient)
    loss = case.loss_fn(case.model(case.batch[0]), case.batch[1]) + 0.5 * mu * before @ before

    info = optimizer.step(case.batch)

    theta = flat_parameters(case)
    after = case.loss_fn(case.model(case.batch[0]), case.batch[1]) + 0.5 * mu * theta @ theta
    predicted = gradient @ step + 0.5 * step @ (matrix + mu * eye) @ step
    assert_close(theta - before, step, rtol=0, atol=1e-8)
    assert info.loss == pytest.approx(loss.item())
    assert info.grad_norm == pytest.approx(gradient.norm().item())
    assert info.reduction_ratio == pytest.approx(((after - loss) / predicted).item())
    assert info.damping == (0.05,) * len(optimizer.param_groups)


@pytest.mark.parametrize("weight", [-1e-5, math.nan, math.inf])
def test_a_penalty_below_zero_is_an_error(weight):
    """It would pull the parameters apart."""
    with pytest.raises(ValueError, match=naming("L2", "weight", 0)):
        bdhf.L2(weight)

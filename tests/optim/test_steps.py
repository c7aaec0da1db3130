"""Exact steps: what one update does, and its report."""

import copy
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import Stop
from tests.cases import CASES, build
from tests.optim.optimizers import EXACT, dense_step, optimizer_of, regression
from tests.optim.partitions import PARTITIONS
from tests.oracles import dense_ggn, dense_gradient, flat_parameters


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_step_equals_dense_block_solve(case, partition):
    """With converged CG one step solves every damped block exactly, to 1e-8."""
    case = build(case)
    optimizer = optimizer_of(case, partition, solver=EXACT, damping=bdhf.Constant(0.05), lr=1.0)
    before = flat_parameters(case).clone()
    expected = dense_step(case, optimizer, 0.05)

    optimizer.step(case.batch)

    assert_close(flat_parameters(case) - before, expected, rtol=0, atol=1e-8)


def test_one_undamped_full_step_solves_linear_least_squares():
    """On a linear model with lr 1 and λ 0, one full step is the least-squares solution."""
    model = nn.Linear(4, 2).double()
    x, y = torch.randn(30, 4).double(), torch.randn(30, 2).double()
    optimizer = bdhf.BlockHessianFree(
        model, F.mse_loss, partition=bdhf.Full(), solver=EXACT, damping=bdhf.Constant(0.0), lr=1.0
    )

    optimizer.step((x, y))

    design = torch.cat([x, torch.ones(30, 1).double()], dim=1)
    solution = torch.linalg.lstsq(design, y).solution
    assert_close(torch.cat([model.weight, model.bias[:, None]], dim=1).detach(), solution.T)


def test_groups_with_one_block_give_the_bits_of_full():
    """Full HF is the case of one block: the same iterates, bit for bit."""
    model, batch = regression()
    twin = copy.deepcopy(model)
    full = bdhf.BlockHessianFree(model, F.mse_loss, partition=bdhf.Full())
    groups = bdhf.BlockHessianFree(twin, F.mse_loss, partition=bdhf.Groups([["*"]]))

    infos = [(full.step(batch), groups.step(batch)) for _ in range(4)]

    assert all(info == other for info, other in infos)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


def test_gradient_and_curvature_come_from_their_own_batches():
    """The gradient is taken on the batch, the curvature on the curvature batch."""
    case, small = build("mlp"), build("mlp")
    optimizer = optimizer_of(case, "full", solver=EXACT, damping=bdhf.Constant(0.1), lr=1.0)
    subset = tuple(part[:4] for part in case.batch)
    curvature = dense_ggn(type(small)(small.model, small.loss_fn, subset))
    damped = curvature + 0.1 * torch.eye(len(curvature), dtype=torch.float64)
    expected = torch.linalg.solve(damped, -dense_gradient(case))
    before = flat_parameters(case).clone()

    optimizer.step(case.batch, curvature_batch=subset)

    assert_close(flat_parameters(case) - before, expected, rtol=0, atol=1e-8)


def test_all_blocks_are_solved_at_one_point():
    """A block's step does not depend on whether the other blocks are trained."""
    case = build("mlp")
    optimizer = optimizer_of(case, solver=EXACT, lr=1.0)
    frozen = build("mlp")
    for name, parameter in frozen.model.named_parameters():
        parameter.requires_grad_(name.startswith("2."))
    before = flat_parameters(frozen).clone()
    optimizer.step(case.batch)

    optimizer_of(frozen, solver=EXACT, lr=1.0).step(frozen.batch)

    moved = torch.cat([case.model[2].weight.reshape(-1), case.model[2].bias])
    assert_close(flat_parameters(frozen), moved)
    assert not torch.equal(flat_parameters(frozen), before)


def test_groups_have_their_own_rate_and_damping():
    """A group with lr 0 stays where it is; its damping is the one of its block alone."""
    case = build("mlp")
    optimizer = optimizer_of(case, solver=EXACT, damping=bdhf.Constant(0.05), lr=1.0)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.param_groups[1]["damping"] = 0.7
    blocks = optimizer.blocks.positions()
    weak, strong = (dense_step(case, optimizer, damping) for damping in (0.05, 0.7))
    before = flat_parameters(case).clone()

    info = optimizer.step(case.batch)

    step = flat_parameters(case) - before
    assert torch.equal(step[blocks[0]], torch.zeros_like(step[blocks[0]]))
    assert_close(step[blocks[1]], strong[blocks[1]], rtol=0, atol=1e-8)
    assert_close(step[blocks[2]], weak[blocks[2]], rtol=0, atol=1e-8)
    assert info.damping == (0.05, 0.7, 0.05)


def test_the_next_solve_starts_at_a_share_of_the_last_solution():
    """With one CG iteration the second direction is one textbook step from ζ · d."""
    case = build("mlp")
    solver = bdhf.CG(max_iters=1, tol=0, warm_start=0.5)
    optimizer = optimizer_of(case, "full", solver=solver, damping=bdhf.Constant(0.1), lr=1.0)
    first = flat_parameters(case).clone()
    optimizer.step(case.batch)
    second = flat_parameters(case).clone()
    start = 0.5 * (second - first)
    damped = dense_ggn(case) + 0.1 * torch.eye(len(start), dtype=torch.float64)
    residual = -dense_gradient(case) - damped @ start
    alpha = (residual @ residual) / (residual @ damped @ residual)

    optimizer.step(case.batch)

    assert_close(flat_parameters(case) - second, start + alpha * residual)


def test_step_info_says_what_happened():
    """Loss, norms, counts and the reduction ratio equal their definitions."""
    case = build("mlp")
    optimizer = optimizer_of(case, "full", solver=EXACT, damping=bdhf.Constant(0.2), lr=0.5)
    gradient, matrix = dense_gradient(case), dense_ggn(case)
    loss = case.loss_fn(case.model(case.batch[0]), case.batch[1]).item()
    before = flat_parameters(case).clone()

    info = optimizer.step(case.batch)

    step = flat_parameters(case) - before
    after = case.loss_fn(case.model(case.batch[0]), case.batch[1]).item()
    predicted = gradient @ step + 0.5 * step @ matrix @ step
    assert info.loss == pytest.approx(loss)
    assert info.grad_norm == pytest.approx(gradient.norm().item())
    assert info.step_norm == pytest.approx(step.norm().item())
    assert info.reduction_ratio == pytest.approx((after - loss) / predicted.item())
    assert info.products == info.cg_iterations[0]
    assert info.damping == (0.2,)
    assert info.step_size == (0.5,)
    assert info.stop == (Stop.CONVERGED,)


@pytest.mark.parametrize("partition", ["per_layer", "thirds"])
def test_predicted_change_is_of_the_block_model_with_the_rates_of_the_groups(partition):
    """ρ divides by Σ_b gᵀs + ½ sᵀG_bb s at the step that was applied."""
    case = build("classifier")
    optimizer = optimizer_of(case, partition, solver=bdhf.CG(max_iters=3, tol=0), lr=0.5)
    for index, group in enumerate(optimizer.param_groups):
        group["lr"] = 0.3 + 0.2 * index
        group["damping"] = 0.01 + 0.5 * index
    G = bdhf.block_curvature(
        case.model, case.loss_fn, case.batch, partition=PARTITIONS[partition](None)
    ).to_dense()
    gradient, before = dense_gradient(case), flat_parameters(case).clone()

    info = optimizer.step(case.batch)

    step = flat_parameters(case) - before
    after = case.loss_fn(case.model(case.batch[0]), case.batch[1]).item()
    predicted = (gradient @ step + 0.5 * step @ G @ step).item()
    assert info.reduction_ratio == pytest.approx((after - info.loss) / predicted)


def test_reduction_ratio_is_of_the_curvature_batch():
    """Actual change on the curvature batch ÷ gᵀs + ½ sᵀGs with its G and the gradient of all."""
    case, curvature = build("mlp"), build("mlp")
    optimizer = optimizer_of(case, "full", solver=EXACT, lr=0.7)
    subset = tuple(part[:3] for part in case.batch)
    small = type(case)(curvature.model, curvature.loss_fn, subset)
    matrix, gradient = dense_ggn(small), dense_gradient(case)
    before, loss = flat_parameters(case).clone(), case.loss_fn(case.model(subset[0]), subset[1])

    info = optimizer.step(case.batch, curvature_batch=subset)

    step = flat_parameters(case) - before
    change = case.loss_fn(case.model(subset[0]), subset[1]) - loss
    predicted = gradient @ step + 0.5 * step @ matrix @ step
    assert info.reduction_ratio == pytest.approx((change / predicted).item())


def test_damping_and_acceptance_are_asked_and_obeyed():
    """λ follows its rule from the reduction ratio; the step is scaled by the factor accepted."""
    case = build("mlp")
    seen, outputs = {}, []

    class Rule:
        initial = 0.05
        per_block = False

        def update(self, damping, reduction_ratio):
            seen["ratio"] = reduction_ratio
            return damping * 3

    class Half:
        needs_iterates = False

        def choose(self, trial):
            seen["graphs"] = [output() for output in outputs]
            seen["losses"] = (trial.loss(0, 0.0), trial.loss(0, 1.0))
            seen["slope"] = trial.slope(trial.last)
            return trial.last, 0.5

    optimizer = optimizer_of(case, "full", solver=EXACT, damping=Rule(), acceptance=Half(), lr=1.0)
    before, gradient = flat_parameters(case).clone(), dense_gradient(case)
    expected = dense_step(case, optimizer, 0.05)
    case.model.register_forward_hook(lambda m, i, output: outputs.append(weakref.ref(output)))

    info = optimizer.step(case.batch)

    assert_close(flat_parameters(case) - before, 0.5 * expected, rtol=0, atol=1e-8)
    assert set(seen["graphs"]) == {None}  # the graph has gone before the parameters move
    assert seen["losses"][0] == pytest.approx(info.loss)
    assert seen["losses"][1] < info.loss
    assert seen["slope"] == pytest.approx((gradient @ expected).item())
    assert seen["ratio"] == info.reduction_ratio
    assert info.damping == (0.05,)
    assert optimizer.param_groups[0]["damping"] == pytest.approx(0.15)
    assert info.step_size == (0.5,)


def test_products_are_counted_by_the_size_of_their_blocks():
    """Σ_b n_b P_b / P, and the sum of all blocks once is one product."""
    case = build("mlp")
    optimizer = optimizer_of(case, "per_layer", solver=bdhf.CG(max_iters=2, tol=0))

    info = optimizer.step(case.batch)

    assert info.cg_iterations == (2, 2, 2)
    assert info.products == pytest.approx(2.0)


def test_gradient_equivalents_count_the_work_in_gradients():
    """By multiply counts of an MLP: a full product is J v and Jᵀ w, a gradient forward and back."""
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Tanh(), nn.Linear(16, 4, bias=False))
    batch = (torch.randn(32, 8), torch.randn(32, 4))
    optimizer = bdhf.BlockHessianFree(
        model, F.mse_loss, partition=bdhf.Full(), solver=bdhf.CG(max_iters=3, tol=0)
    )
    first, second = 8 * 16, 16 * 4
    forward, backward = first + second, first + 2 * second  # no gradient for the inputs
    product = 2 * backward

    cold = optimizer.step(batch)
    warm = optimizer.step(batch)

    gradient = forward + backward
    assert cold.gradient_equivalents == pytest.approx((gradient + 3 * product + forward) / gradient)
    assert warm.gradient_equivalents == pytest.approx((gradient + 4 * product + forward) / gradient)
    # on a quarter of the batch, all but the gradient costs a quarter, and the gradient comes apart
    quarter = optimizer.step(batch, curvature_batch=(batch[0][:8], batch[1][:8]))
    rest = gradient + 4 * product + forward
    assert quarter.gradient_equivalents == pytest.approx((gradient + rest / 4) / gradient)


def test_training_reduces_the_loss_with_every_partition():
    """Thirty updates of damped block HF fit a small regression, whatever the blocks."""
    for partition in (bdhf.Full(), bdhf.PerLayer(), bdhf.Groups([["0.*"], ["2.*"]])):
        model, batch = regression()
        optimizer = bdhf.BlockHessianFree(model, F.mse_loss, partition=partition)

        losses = [optimizer.step(batch).loss for _ in range(30)]

        assert losses[-1] < 0.1 * losses[0]

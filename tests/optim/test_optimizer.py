"""The optimizer: exact steps, whole state, nothing moved by a failure."""

import copy
import gc
import math
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import Stop
from bdhf.optim.layout import layout_of
from tests.cases import CASES, build
from tests.optim.partitions import PARTITIONS
from tests.oracles import dense_block_step, dense_ggn, dense_gradient, flat_parameters

EXACT = bdhf.CG(max_iters=2000, tol=0, residual_tol=1e-13)


def optimizer_of(case, partition="per_layer", **parts):
    """An optimizer on a case, under a partition of the table."""
    made = PARTITIONS[partition](layout_of(case.model))
    return bdhf.BlockHessianFree(case.model, case.loss_fn, partition=made, **parts)


def regression(n=200, seed=0):
    """A small regression problem with a non-linear model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        x = torch.randn(n, 6)
    return model, (x, torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin()], dim=1))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_step_equals_dense_block_solve(case, partition):
    """With converged CG one step solves every damped block exactly, to 1e-8."""
    case = build(case)
    optimizer = optimizer_of(case, partition, solver=EXACT, damping=bdhf.Constant(0.05), lr=1.0)
    before = flat_parameters(case).clone()
    expected = dense_block_step(case, optimizer.blocks.positions(), 0.05)

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

    assert all(one == other for one, other in infos)
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


def test_damping_and_acceptance_are_asked_and_obeyed():
    """λ follows its rule from the reduction ratio; the step is scaled by the factor accepted."""
    case = build("mlp")
    seen = {}

    class Rule:
        initial = 0.05

        def update(self, damping, reduction_ratio):
            seen["ratio"] = reduction_ratio
            return damping * 3

    class Half:
        def factor(self, loss_at, slope):
            seen["graph"] = [r for r in (optimizer_graph() or []) if r() is not None]
            seen["losses"] = (loss_at(0.0), loss_at(1.0))
            seen["slope"] = slope
            return 0.5

    def optimizer_graph():
        return graphs

    graphs = []
    case.model.register_forward_hook(lambda m, i, out: graphs.append(weakref.ref(out)))
    optimizer = optimizer_of(case, "full", solver=EXACT, damping=Rule(), acceptance=Half(), lr=1.0)
    before, gradient = flat_parameters(case).clone(), dense_gradient(case)
    graphs.clear()
    expected = dense_block_step(case, optimizer.blocks.positions(), 0.05)
    graphs.clear()

    info = optimizer.step(case.batch)

    assert_close(flat_parameters(case) - before, 0.5 * expected, rtol=0, atol=1e-8)
    assert seen["graph"] == []  # the graph has gone before the parameters move
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


def test_state_dict_continues_bit_exactly(tmp_path):
    """Saved, loaded into a new optimizer and continued, the parameters stay the same bits."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, lr=0.4)
    for _ in range(3):
        optimizer.step(batch)
    optimizer.param_groups[0]["damping"] = 5e-3
    twin = copy.deepcopy(model)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = bdhf.BlockHessianFree(twin, F.mse_loss, lr=9.9)

    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    infos = [(optimizer.step(batch), resumed.step(batch)) for _ in range(3)]

    for one, other in infos:
        assert one == other
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_goes_on_like_the_original(copied):
    """A model copied together with its optimizer trains on, bit for bit, and apart from it."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step(batch)

    twin, other = copied((model, optimizer))
    infos = [(optimizer.step(batch), other.step(batch)) for _ in range(2)]

    assert all(one == two for one, two in infos)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p is not q


def test_warm_start_is_part_of_the_iteration():
    """A fresh optimizer at the same point takes another step than one that starts warm."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step(batch)
    twin = copy.deepcopy(model)

    optimizer.step(batch)
    bdhf.BlockHessianFree(twin, F.mse_loss).step(batch)

    assert not torch.equal(model[0].weight, twin[0].weight)


def test_a_scheduler_drives_the_learning_rate():
    """torch.optim.lr_scheduler sets the lr that the next update uses."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, lr=0.8)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)

    sizes = []
    for _ in range(3):
        sizes.append(optimizer.step(batch).step_size)
        scheduler.step()

    assert sizes == [(0.8, 0.8), (0.4, 0.4), (0.2, 0.2)]


def test_groups_have_their_own_rate_and_damping():
    """A group with lr 0 stays where it is; its damping is the one of its block alone."""
    case = build("mlp")
    optimizer = optimizer_of(case, solver=EXACT, damping=bdhf.Constant(0.05), lr=1.0)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.param_groups[1]["damping"] = 0.7
    blocks = optimizer.blocks.positions()
    weak, strong = (dense_block_step(case, blocks, damping) for damping in (0.05, 0.7))
    before = flat_parameters(case).clone()

    info = optimizer.step(case.batch)

    step = flat_parameters(case) - before
    assert torch.equal(step[blocks[0]], torch.zeros_like(step[blocks[0]]))
    assert_close(step[blocks[1]], strong[blocks[1]], rtol=0, atol=1e-8)
    assert_close(step[blocks[2]], weak[blocks[2]], rtol=0, atol=1e-8)
    assert info.damping == (0.05, 0.7, 0.05)


@pytest.mark.parametrize("where", ["product", "loss", "damping"])
def test_an_exception_in_the_middle_leaves_everything_as_it_was(where):
    """Parameters and state are bit for bit what they were before the step that failed."""
    model, batch = regression()
    calls = {"loss": 0}

    def loss_fn(outputs, targets):
        calls["loss"] += 1
        if calls["loss"] == calls.get("fail"):
            raise RuntimeError("planted")
        return F.mse_loss(outputs, targets)

    class Rule(bdhf.Constant):
        def update(self, damping, reduction_ratio):
            if calls.get("rule"):
                raise RuntimeError("planted")
            return damping

    optimizer = bdhf.BlockHessianFree(model, loss_fn, damping=Rule(1e-3))
    optimizer.step(batch)
    parameters = [p.detach().clone() for p in model.parameters()]
    state = copy.deepcopy(optimizer.state_dict())

    def watch():
        raise RuntimeError("planted")

    calls["fail"] = calls["loss"] + 2 if where == "loss" else None  # the loss after the move
    calls["rule"] = where == "damping"
    with pytest.raises(RuntimeError, match="planted"):
        optimizer.step(batch, watch=watch if where == "product" else None)

    for p, before in zip(model.parameters(), parameters, strict=True):
        assert torch.equal(p, before)
    for key, entry in optimizer.state_dict()["state"].items():
        assert torch.equal(entry["direction"], state["state"][key]["direction"])
    assert optimizer.state_dict()["param_groups"] == state["param_groups"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing_and_says_so(value):
    """A NaN is met where it arises: the parameters stay finite, the info tells."""
    model, (x, y) = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step((x, y))
    before = [p.detach().clone() for p in model.parameters()]

    info = optimizer.step((x, torch.full_like(y, value)))

    assert not math.isfinite(info.loss)
    assert set(info.stop) == {Stop.NONFINITE}
    for p, q in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, q)


def test_a_gradient_that_is_not_finite_in_one_block_moves_no_block():
    """One poisoned layer does not let the others go on alone."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    def loss_fn(outputs, targets):
        poisoned = model[1].bias.sum() * math.inf * 0.0
        return F.mse_loss(outputs, targets) + torch.nan_to_num(poisoned) + 0 * model[1].bias.sum()

    def hook(gradient):
        return torch.full_like(gradient, math.nan)

    model[1].bias.register_hook(hook)
    optimizer = bdhf.BlockHessianFree(model, loss_fn)
    before = [p.detach().clone() for p in model.parameters()]

    info = optimizer.step(
        (torch.ones(3, 2), torch.ones(3, 2)), (torch.ones(1, 2), torch.ones(1, 2))
    )

    assert math.isfinite(info.loss)
    assert math.isnan(info.grad_norm)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_training_recovers_after_an_update_that_moved_nothing():
    """The update after a poisoned batch is that of a fresh optimizer: it starts cold."""
    model, (x, y) = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step((x, y))
    optimizer.step((x, math.nan * y))
    twin = copy.deepcopy(model)

    assert optimizer.step((x, y)) == bdhf.BlockHessianFree(twin, F.mse_loss).step((x, y))


def test_an_empty_curvature_batch_moves_nothing():
    """Without curvature there is no quadratic model to step by."""
    model, (x, y) = regression()
    before = [p.detach().clone() for p in model.parameters()]

    info = bdhf.BlockHessianFree(model, F.mse_loss).step((x, y), (x[:0], y[:0]))

    assert set(info.stop) == {Stop.NONFINITE}
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_parameters_frozen_later_are_refused():
    """A changed requires_grad would shift the vector under the blocks: it is an error."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    model[0].requires_grad_(False)

    with pytest.raises(ValueError, match="frozen since the blocks were made"):
        optimizer.step(batch)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.BatchNorm1d(8), r"'1' \(BatchNorm1d\) couples the samples"),
        (nn.RReLU(), r"'1' \(RReLU\) draws another slope"),
        (nn.Dropout(0.5), r"'1' \(Dropout\) drops other units"),
        (nn.MultiheadAttention(8, 2, dropout=0.1), r"'1' \(MultiheadAttention\) drops"),
    ],
)
def test_modules_that_are_no_function_of_each_sample_are_refused_in_training(module, message):
    """Their products would be silently wrong; in eval mode they are welcome."""
    model = nn.Sequential(nn.Linear(6, 8), module, nn.Linear(8, 2))
    _, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)

    with pytest.raises(ValueError, match=message):
        optimizer.step(batch)
    module.eval()
    if not isinstance(module, nn.MultiheadAttention):
        assert optimizer.step(batch).loss > 0


def test_dropout_with_rate_0_is_a_function():
    """A module that drops nothing is no reason to refuse."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.0), nn.Linear(8, 2))

    assert bdhf.BlockHessianFree(model, F.mse_loss).step(regression()[1]).loss > 0


def test_autocast_does_not_reach_into_an_update():
    """Under autocast the update is that of full precision, bit for bit."""
    model, batch = regression()
    twin = copy.deepcopy(model)
    plain = bdhf.BlockHessianFree(model, F.mse_loss).step(batch)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = bdhf.BlockHessianFree(twin, F.mse_loss).step(batch)

    assert plain == inside


def test_memory_does_not_grow_over_updates():
    """After forty updates there are as many tensors as after ten, also when a step raised."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)

    def tensors_after(updates):
        for _ in range(updates):
            optimizer.step(batch)
        with pytest.raises(RuntimeError, match="planted"):
            optimizer.step(batch, watch=planted)
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    def planted():
        raise RuntimeError("planted")

    assert tensors_after(10) == tensors_after(30)


@pytest.mark.parametrize("batches", [([1, 2],), ((1, 2), [1, 2])])
def test_a_batch_that_is_no_pair_is_refused(batches):
    """Both batches are checked, before anything is computed."""
    optimizer = bdhf.BlockHessianFree(nn.Linear(2, 1), F.mse_loss)

    with pytest.raises(TypeError, match=r"a batch is a tuple \(inputs, targets\); got list"):
        optimizer.step(*batches)


@pytest.mark.parametrize("lr", [math.nan, math.inf, 0.0, -0.1])
def test_a_learning_rate_that_is_not_positive_is_an_error(lr):
    """The lr is checked where it is given."""
    with pytest.raises(ValueError, match="lr must be finite and above 0"):
        bdhf.BlockHessianFree(nn.Linear(2, 1), F.mse_loss, lr=lr)


@pytest.mark.parametrize("value", [-1e-3, math.nan, math.inf])
def test_a_damping_below_zero_is_an_error(value):
    """Constant damping is finite and at least 0."""
    with pytest.raises(ValueError, match="Constant damping"):
        bdhf.Constant(value)


def test_param_groups_are_the_partition():
    """A group added by hand would be a parameter without a block."""
    optimizer = bdhf.BlockHessianFree(nn.Linear(2, 1), F.mse_loss)
    with pytest.raises(TypeError, match="blocks of its partition"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def test_training_reduces_the_loss_with_every_partition():
    """Thirty updates of damped block HF fit a small regression, whatever the blocks."""
    for partition in (bdhf.Full(), bdhf.PerLayer(), bdhf.Groups([["0.*"], ["2.*"]])):
        model, batch = regression()
        optimizer = bdhf.BlockHessianFree(model, F.mse_loss, partition=partition)

        losses = [optimizer.step(batch).loss for _ in range(30)]

        assert losses[-1] < 0.1 * losses[0]

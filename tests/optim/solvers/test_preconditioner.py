"""Preconditioned conjugate gradients: textbook rows, and Martens' diagonal as it is defined."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import CG, Stop
from bdhf.optim.solvers import Martens, System
from bdhf.optim.vectors.layout import layout_of
from tests.cases import CASES, Case, build
from tests.messages import naming
from tests.optim.curvatures import CURVATURES
from tests.optim.optimizers import EXACT, optimizer_of
from tests.optim.partitions import PARTITIONS
from tests.optim.systems import SIZES, Diagonal, answers, positive, system, textbook
from tests.oracles import derivative, flat_parameters, size

#: Both ways to the squares: a pass over the samples, and products per site.
WAYS = pytest.mark.parametrize("way", [None, "sites"])

PRECONDITIONED = bdhf.CG(max_iters=2000, tol=0, residual_tol=1e-11, preconditioner=Martens())


@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
@pytest.mark.parametrize("warm", [False, True])
def test_every_row_is_textbook_preconditioned_cg(iterations, warm):
    """After i iterations each row holds the i-th textbook iterate, and φ of that iterate."""
    generator = torch.Generator().manual_seed(4)
    matrices = [positive(n, seed) for seed, n in enumerate(SIZES)]
    rhs = [torch.randn(n, generator=generator, dtype=torch.float64) for n in SIZES]
    m = torch.logspace(-1, 1, sum(SIZES), dtype=torch.float64)
    start = torch.linspace(-1, 1, sum(SIZES), dtype=torch.float64) if warm else None
    solved = system(matrices, rhs, damping=0.5)

    solution = CG(max_iters=iterations, tol=0, preconditioner=Diagonal(m)).solve(
        solved, None if start is None else start.clone()
    )

    starts = [None] * 4 if start is None else start.split(SIZES)
    for b, x in enumerate(answers(solution, solved)):
        damped = matrices[b] + 0.5 * torch.eye(SIZES[b], dtype=torch.float64)
        trace = textbook(damped, rhs[b], iterations, starts[b], m.split(SIZES)[b])
        assert_close(x, trace[-1][0])
        assert_close(solution.model[b], trace[-1][1])
    assert solution.products == (iterations + warm,) * 4


def diagonal_of(case, preconditioner, damping, curvature="ggn", partition="full", batch=None):
    """The diagonal for a case as a flat vector (P,), damping one per block."""
    G = bdhf.block_curvature(
        case.model,
        case.loss_fn,
        case.batch if batch is None else batch,
        curvature=CURVATURES[curvature][0],
        partition=PARTITIONS[partition](layout_of(case.model)),
    )
    blocks = G._blocks
    lam = damping * torch.ones(len(blocks.rows), dtype=torch.float64)
    with torch.no_grad():
        m = preconditioner(System(blocks, G._product, torch.zeros(size(case)).double(), lam))
    return blocks.scatter(m)


def squares(case):
    """(∇ℓ_n)² of every sample, (N, P), with L = (1/N) Σ ℓ_n, or Σ ℓ_n for a sum; one by one."""
    x, y = case.batch
    scale = 1 if getattr(case.loss_fn, "reduction", "mean") == "sum" else len(x)
    rows = []
    for n in range(len(x)):
        z = case.model(x)
        sample = z.detach().clone()
        sample[n] = z[n]
        rows.append(scale * derivative(case.loss_fn(sample, y), case))
    return torch.stack(rows).square()


def reduced(case):
    """What stands for D: the mean of the squares, or their sum where the loss is one."""
    is_sum = getattr(case.loss_fn, "reduction", "mean") == "sum"
    return squares(case).sum(0) if is_sum else squares(case).mean(0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
@WAYS
def test_martens_diagonal_is_that_of_the_gradients_of_the_samples(case, curvature, way):
    """(mean_n (∇ℓ_n)² + λ)^0.75, sample by sample, also where torch cannot take them at once."""
    case = build(case)

    m = diagonal_of(case, Martens(squares=way), 0.3, curvature)

    assert_close(m, (reduced(case) + 0.3) ** 0.75, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("curvature", CURVATURES)
@WAYS
def test_martens_diagonal_does_not_depend_on_the_curvature(curvature, way):
    """It is of the loss with the true targets, whatever the matrix draws."""
    case = build("classifier")

    m = diagonal_of(case, Martens(squares=way), 0.3, curvature)

    assert_close(m, (reduced(case) + 0.3) ** 0.75)


class SharedTensor(nn.Module):
    """Two modules with one weight between them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


@WAYS
def test_a_tensor_of_two_modules_is_differentiated_in_both(way):
    """A weight that two modules share has the squares of its whole gradient."""
    draws = torch.Generator().manual_seed(0)
    batch = tuple(torch.randn(4, 3, generator=draws, dtype=torch.float64) for _ in range(2))
    case = Case(SharedTensor().double(), F.mse_loss, batch)

    m = diagonal_of(case, Martens(squares=way), 0.3)

    assert_close(m, (reduced(case) + 0.3) ** 0.75)


@pytest.mark.parametrize("case", CASES)
def test_the_model_has_its_own_parameters_afterwards(case):
    """The pass over the samples leaves the parameters of the model where they were, and trained."""
    case = build(case)
    before = list(case.model.named_parameters(remove_duplicate=False))
    assert len(before) > 0

    diagonal_of(case, Martens(), 0.3)

    after = list(case.model.named_parameters(remove_duplicate=False))
    assert [name for name, _ in after] == [name for name, _ in before]
    assert all(p is q for (_, p), (_, q) in zip(after, before, strict=True))


@pytest.mark.parametrize("case", ["mlp", "classifier", "sum_bce", "tokens", "ignoring", "lstm"])
@pytest.mark.parametrize("sizes", [[1, 3], [2, 2], [3, 1]])
@WAYS
def test_micro_batches_make_the_diagonal_of_the_whole_batch(case, sizes, way):
    """Unequal micro-batches give the squares that the samples have in the whole loss."""
    case = build(case)
    x, y = (part[:4] for part in case.batch)
    whole = type(case)(case.model, case.loss_fn, (x, y))
    pieces = list(zip(x.split(sizes), y.split(sizes), strict=True))

    m = diagonal_of(case, Martens(squares=way), 0.3, batch=pieces)

    assert_close(m, (reduced(whole) + 0.3) ** 0.75)


@pytest.mark.parametrize("exponent", [0.5, 1.0])
@pytest.mark.parametrize("partition", PARTITIONS)
@WAYS
def test_every_block_adds_its_own_damping(partition, exponent, way):
    """λ_b on the entries of block b, in the order of the parameters; the exponent is a setting."""
    case = build("mlp")
    blocks = optimizer_of(case, partition).blocks
    damping = torch.linspace(0.1, 2, len(blocks.rows), dtype=torch.float64)
    spread = torch.empty(size(case), dtype=torch.float64)
    for positions, value in zip(blocks.positions(), damping, strict=True):
        spread[positions] = value

    m = diagonal_of(case, Martens(exponent, way), damping, partition=partition)

    assert_close(m, (reduced(case) + spread) ** exponent)


@WAYS
def test_entries_that_no_sample_reaches_are_left_as_they_are_without_damping(way):
    """M is 1 where the squares and λ are 0, so that nothing is divided by 0."""
    case = build("unused")

    m = diagonal_of(case, Martens(squares=way), 0.0)

    unreached = reduced(case) == 0
    assert unreached.any()
    assert torch.equal(m[unreached], torch.ones(int(unreached.sum()), dtype=torch.float64))
    assert_close(m[~unreached], reduced(case)[~unreached] ** 0.75)


def badly_scaled(solver):
    """Least squares with inputs of scales from 1e-2 to 1e2, and an optimizer with that solver."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(60, 8, generator=draws, dtype=torch.float64) * torch.logspace(-2, 2, 8).double()
    model = nn.Linear(8, 1).double()
    bdhf.nn.Glorot()(model, draws)
    y = x.sum(1, keepdim=True) + torch.randn(60, 1, generator=draws, dtype=torch.float64)
    optimizer = bdhf.BlockHessianFree(
        model, F.mse_loss, partition=bdhf.Full(), solver=solver, damping=bdhf.Constant(1e-6)
    )
    return optimizer, (x, y)


def test_preconditioning_saves_iterations_on_a_badly_scaled_problem():
    """It is applied: with parameters of different scales, CG needs fewer iterations."""
    counts = {}
    for preconditioner in (bdhf.optim.NoPreconditioner(), Martens()):
        solver = CG(max_iters=2000, tol=0, residual_tol=1e-6, preconditioner=preconditioner)
        optimizer, batch = badly_scaled(solver)
        info = optimizer.step(batch)
        assert info.stop == (Stop.CONVERGED,)
        counts[type(preconditioner)] = info.cg_iterations[0]

    assert counts[Martens] < 0.7 * counts[bdhf.optim.NoPreconditioner]


def test_truncated_steps_differ_with_the_preconditioner():
    """After three iterations the direction is another one."""
    plain, preconditioned = build("mlp"), build("mlp")
    for case, preconditioner in (
        (plain, bdhf.optim.NoPreconditioner()),
        (preconditioned, Martens()),
    ):
        solver = CG(max_iters=3, tol=0, preconditioner=preconditioner)
        optimizer_of(case, solver=solver).step(case.batch)

    gap = (flat_parameters(plain) - flat_parameters(preconditioned)).norm()
    assert gap > 1e-3 * flat_parameters(plain).norm()


@pytest.mark.parametrize("case", ["mlp", "conv", "tied", "sum_bce", "gru"])
@pytest.mark.parametrize("partition", ["full", "per_layer", "per_neuron", "blend"])
def test_the_converged_solution_does_not_depend_on_the_preconditioner(case, partition):
    """Both solve (G + λI) d = -g, to 1e-8."""
    plain, other = build(case), build(case)

    for twin, solver in ((plain, EXACT), (other, PRECONDITIONED)):
        damping = bdhf.Constant(0.05)
        optimizer_of(twin, partition, solver=solver, damping=damping).step(twin.batch)

    assert_close(flat_parameters(other), flat_parameters(plain), rtol=0, atol=1e-8)


@WAYS
def test_the_squares_are_counted(way):
    """They cost about a gradient: each sample forward and back."""
    case, twin = build("mlp"), build("mlp")
    plain = optimizer_of(case, solver=CG(max_iters=3, tol=0)).step(case.batch)
    solver = CG(max_iters=3, tol=0, preconditioner=Martens(squares=way))

    info = optimizer_of(twin, solver=solver).step(twin.batch)

    assert info.products == plain.products
    assert 0.5 < info.gradient_equivalents - plain.gradient_equivalents < 2


class TimeFirst(nn.Module):
    """A recurrent layer on (T, N, 2): dimension 0 of the inputs counts the steps."""

    def __init__(self):
        super().__init__()
        self.recurrent, self.head = nn.RNN(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][-1])


def time_first():
    """The model and a batch: 5 steps of 4 samples."""
    draws = torch.Generator().manual_seed(0)
    x, y = (torch.randn(shape, generator=draws).double() for shape in ((5, 4, 2), (4, 2)))
    return TimeFirst().double(), (x, y)


def test_inputs_that_do_not_count_the_samples_are_refused_with_a_way_out():
    """Time comes first here, so nothing can be taken sample by sample."""
    model, batch = time_first()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, solver=CG(preconditioner=Martens()))

    with pytest.raises(ValueError, match=naming("[5]", "(4, 2)", "preconditioner")):
        optimizer.step(batch)


def test_sites_need_no_inputs_that_count_the_samples():
    """Dimension 0 of the outputs does: the squares are those of the gradients of each sample."""
    model, (x, y) = time_first()

    m = diagonal_of(Case(model, F.mse_loss, (x, y)), Martens(squares="sites"), 0.3)

    squares = []
    for n in range(4):
        loss = F.mse_loss(model(x[:, n : n + 1]), y[n : n + 1])
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        squares.append(torch.cat([part.reshape(-1) for part in gradient]).square())
    assert_close(m, (torch.stack(squares).mean(0) + 0.3) ** 0.75)


@pytest.mark.parametrize("exponent", [0.0, -0.5, 1.01, float("nan")])
def test_an_exponent_out_of_range_is_an_error(exponent):
    """M must grow with the squares, and not faster than them."""
    with pytest.raises(ValueError, match=naming("Martens", "exponent", "(0, 1]")):
        Martens(exponent)


def test_another_way_to_the_squares_is_an_error():
    """The message names what is allowed."""
    with pytest.raises(ValueError, match=naming("Martens", "squares", "sites", "None", "fast")):
        Martens(squares="fast")


def test_a_recurrent_network_gets_no_word_of_vmap_s_rules():
    """Its fused operator has none in float32, which does not concern the user."""
    torch.manual_seed(0)

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent = nn.LSTM(2, 4, batch_first=True)

        def forward(self, x):
            return self.recurrent(x)[0][:, -1]

    batch = torch.randn(6, 3, 2), torch.randn(6, 4)
    solver = bdhf.CG(preconditioner=bdhf.Martens())
    optimizer = bdhf.BlockHessianFree(Last(), nn.functional.mse_loss, solver=solver)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        optimizer.step(batch)

    assert not [warning for warning in heard if "performance drop" in str(warning.message)]

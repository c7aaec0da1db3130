"""Saddle-free steps: the absolute values of the curvature, in the Krylov space of every block."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import SaddleFree, Stop
from bdhf.optim.products.cost import Sweeps
from tests.cases import Case, build
from tests.messages import naming
from tests.optim.curvatures import CURVATURES, SEED
from tests.optim.optimizers import optimizer_of, regression
from tests.optim.partitions import PARTITIONS
from tests.optim.systems import SIZES, answers, positive, system, textbook
from tests.oracles import blocked, dense_gradient, flat_parameters, size

SHIFTS = (0.0, 6.0, 25.0, 12.0)  # a definite matrix, two indefinite ones, a negative definite one
DAMPINGS = torch.tensor([0.5, 0.1, 2.0, 0.3], dtype=torch.float64)


def absolute(matrix, rhs, damping):
    """(|G| + λI)⁻¹ b by a dense eigendecomposition."""
    theta, q = torch.linalg.eigh(matrix)
    return q @ ((q.T @ rhs) / (theta.abs() + damping))


def projected(matrix, rhs, damping, steps):
    """The same of VᵀGV, for an orthonormal basis V of the Krylov space of `steps` vectors."""
    powers = [rhs / rhs.norm()]
    for _ in range(steps - 1):
        powers.append(matrix @ powers[-1] / (matrix @ powers[-1]).norm())
    v, _ = torch.linalg.qr(torch.stack(powers, 1))
    return v @ absolute(v.T @ matrix @ v, v.T @ rhs, damping)


def phi(matrix, rhs, damping, x):
    """½ xᵀ(G + λI)x - bᵀx."""
    return 0.5 * (x @ matrix @ x + damping * x @ x) - rhs @ x


@pytest.fixture
def problem():
    """Matrices of every signature, right-hand sides, and their systems with unequal λ."""
    matrices = [
        positive(n, seed) - shift * torch.eye(n, dtype=torch.float64)
        for seed, (n, shift) in enumerate(zip(SIZES, SHIFTS, strict=True))
    ]
    generator = torch.Generator().manual_seed(9)
    rhs = [torch.randn(n, generator=generator, dtype=torch.float64) for n in SIZES]
    return matrices, rhs, replace(system(matrices, rhs, keep_iterates=True), damping=DAMPINGS)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_every_row_solves_its_projected_problem(problem, steps):
    """After k products d = V |VᵀGV + λ|⁻¹ Vᵀ b in the Krylov space of k vectors, with its φ."""
    matrices, rhs, solved = problem

    solution = SaddleFree(iterations=steps).solve(solved)

    for b, x in enumerate(answers(solution, solved)):
        assert_close(x, projected(matrices[b], rhs[b], DAMPINGS[b], steps))
        assert_close(solution.model[b], phi(matrices[b], rhs[b], DAMPINGS[b], x))
    assert solution.iterations == (steps,) * 4
    assert solution.products == (steps,) * 4


@pytest.mark.parametrize("iterations", [9, 500])
def test_a_complete_space_gives_the_absolute_values_of_the_whole_block(problem, iterations):
    """From n products on, d = (|G_bb| + λ_b I)⁻¹ b of every block, and no more are made."""
    matrices, rhs, solved = problem

    solution = SaddleFree(iterations).solve(solved)

    for b, x in enumerate(answers(solution, solved)):
        assert_close(x, absolute(matrices[b], rhs[b], DAMPINGS[b]))
        assert_close(solution.model[b], phi(matrices[b], rhs[b], DAMPINGS[b], x))
    assert solution.products == solution.iterations == SIZES
    assert solution.stop == (Stop.CONVERGED, *[Stop.NEGATIVE_CURVATURE] * 3)


#: Models with indefinite Hessians, and the curvatures that are positive semi-definite.
COMBINATIONS = [
    *[(case, "hessian") for case in ("mlp", "classifier", "tied", "lstm", "own_loss", "tokens")],
    *[("sum_bce", curvature) for curvature in CURVATURES],
]


@pytest.mark.parametrize(("case", "curvature"), COMBINATIONS)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_the_step_is_that_of_the_absolute_hessian(case, curvature, partition):
    """With products for every block's size the update is -(|G_bb| + λ_b I)⁻¹ g_b, by eigh."""
    case = build(case)
    optimizer = optimizer_of(
        case,
        partition,
        curvature=CURVATURES[curvature][0],
        solver=SaddleFree(1000),
        check=False,
        lr=1.0,
        seed=SEED,
    )
    for index, group in enumerate(optimizer.param_groups):
        group["damping"] = 0.05 * (1 + index)
    matrix, before = (
        blocked(CURVATURES[curvature][1](case), optimizer.blocks),
        flat_parameters(case),
    )
    gradient, expected = dense_gradient(case), torch.empty(size(case), dtype=torch.float64)
    like = torch.empty(0, dtype=torch.float64)
    lam = optimizer._per_block("damping", like)
    for row, damping in zip(optimizer.blocks.positions(), lam, strict=True):
        expected[row] = absolute(matrix[row][:, row], -gradient[row], damping)

    optimizer.step(case.batch)

    assert_close(flat_parameters(case) - before, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("iterations", [1, 2, 5, 12, 20])
def test_a_positive_semi_definite_block_gets_the_iterate_of_cg(iterations):
    """Where no eigenvalue is negative d is the k-th iterate of textbook CG; so are kept ones."""
    matrix = positive(60, 3, condition=100)
    matrix = matrix - torch.linalg.eigvalsh(matrix)[0] * torch.eye(60, dtype=torch.float64)
    rhs = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    damped = matrix + 0.1 * torch.eye(60, dtype=torch.float64)
    trace = textbook(damped, rhs, iterations)
    solved = system([matrix], [rhs], 0.1, keep_iterates=True)

    solution = SaddleFree(iterations).solve(solved)

    cg = bdhf.CG(iterations, tol=0).solve(solved)
    assert solution.stop == cg.stop == (Stop.MAX_ITERS,)
    assert_close(solution.x, trace[-1][0])
    assert len(solution.iterates) == len(cg.iterates)
    for iterate, other in zip(solution.iterates, cg.iterates, strict=True):
        assert_close(iterate.x, other.x)
        assert_close(iterate.model, other.model)


def test_kept_iterates_are_the_answers_of_fewer_products(problem):
    """That after 5 of 9 products is the answer of 5 iterations; without demand there is none."""
    solved = problem[2]

    solution = SaddleFree().solve(solved)

    earlier = SaddleFree(5).solve(solved)
    assert len(solution.iterates) == 3  # 5, 7, and the answer after 9
    assert_close(solution.iterates[0].x, earlier.x)
    assert_close(solution.iterates[0].model, earlier.model)
    assert torch.equal(solution.iterates[-1].x, solution.x)
    assert len(SaddleFree().solve(replace(solved, keep_iterates=False)).iterates) == 1


@pytest.mark.parametrize("iterations", range(1, 10))
@pytest.mark.parametrize("damping", [0.0, 1e-3, 10.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_step_is_downhill_and_its_model_below_zero(iterations, damping, dtype):
    """bᵀd > 0 and φ ≤ -½ bᵀd, whatever the signs of the eigenvalues and the number of products."""
    generator = torch.Generator().manual_seed(iterations)
    matrices = [torch.randn(n, n, generator=generator, dtype=dtype) for n in SIZES]
    matrices = [matrix + matrix.T for matrix in matrices]
    rhs = [torch.randn(n, generator=generator, dtype=dtype) for n in SIZES]
    solved = system(matrices, rhs, damping)

    solution = SaddleFree(iterations).solve(solved)

    slope = solved.blocks.dot(solved.rhs, solution.x)
    assert (slope > 0).all()
    assert (solution.model <= -0.5 * slope * (1 - 1e-3)).all()
    assert solution.x.isfinite().all()


def test_negative_curvature_is_followed_and_not_reversed():
    """On ½(4x² + y² - ½z²) the step moves away from the saddle in z; Newton's moves to it."""
    shape = torch.tensor([4.0, 1.0, -0.5], dtype=torch.float64)
    point = torch.tensor([-0.25, -1.0, 0.1], dtype=torch.float64)
    solved = system([shape.diag()], [-shape * point], damping=0.05)

    x = SaddleFree().solve(solved).x

    assert_close(x, -shape * point / (shape.abs() + 0.05))
    assert x[2] > 0 > torch.linalg.solve(shape.diag(), -shape * point)[2]
    assert bdhf.CG(residual_tol=1e-12).solve(solved).x[2].abs() < x[2]  # it stops before


@pytest.mark.parametrize(
    ("lowest", "damping", "stop"),
    [
        (-0.5, 0.4, Stop.NEGATIVE_CURVATURE),
        (-0.5, 0.6, Stop.CONVERGED),
        (0.0, 0.0, Stop.CONVERGED),
    ],
)
def test_negative_curvature_is_that_of_the_damped_matrix(lowest, damping, stop):
    """It is reported where an eigenvalue of G + λI is below 0, beyond rounding, as by CG."""
    values = torch.tensor([1.0, 2.0, 3.0, lowest], dtype=torch.float64)
    q, _ = torch.linalg.qr(positive(4, 5))
    rhs = torch.ones(4, dtype=torch.float64)

    solution = SaddleFree().solve(system([q @ values.diag() @ q.T], [rhs], damping))

    assert solution.stop == (stop,)


def two_layers(first, second):
    """½ (1 - w₂w₁)²: a saddle at w = 0, with the Hessian [[0, -1], [-1, 0]]; minima on w₂w₁ = 1."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        for layer, weight in zip(model, (first, second), strict=True):
            layer.weight.fill_(weight)
    unit = torch.ones(1, 1, dtype=torch.float64)
    return Case(model, lambda z, y: 0.5 * F.mse_loss(z, y), (unit, unit), recognised=False)


@pytest.mark.parametrize(
    ("first", "second"), [(1e-3, 1e-3), (2e-3, -1e-3), (-3e-3, 1e-3), (1e-6, 0.0)]
)
@pytest.mark.parametrize("acceptance", [bdhf.FullStep(), bdhf.Backtracking()])
def test_a_network_leaves_its_symmetric_saddle(first, second, acceptance):
    """The part of the weights along w₁ = w₂ grows at the first step, and the loss goes to 0."""
    case = two_layers(first, second)
    before = flat_parameters(case)
    optimizer = optimizer_of(
        case, "full", curvature=bdhf.Hessian(), solver=SaddleFree(), lr=0.5,
        damping=bdhf.Constant(1e-2), acceptance=acceptance,
    )  # fmt: skip

    info = optimizer.step(case.batch)
    escape = flat_parameters(case).sum().abs() / before.sum().abs()
    losses = [optimizer.step(case.batch).loss for _ in range(60)]

    assert info.stop == (Stop.NEGATIVE_CURVATURE,)
    assert info.reduction_ratio > 0
    assert escape > 1.4
    assert losses[-1] < 1e-6


@pytest.mark.parametrize("case", ["mlp", "classifier", "tied"])
@pytest.mark.parametrize("partition", ["full", "per_layer"])
def test_with_backtracking_the_loss_never_rises(case, partition):
    """Every update ends at or below where it began, and the last below the first."""
    case = build(case)
    optimizer = optimizer_of(
        case, partition, curvature=bdhf.Hessian(), solver=SaddleFree(), lr=1.0, check=False,
        damping=bdhf.LevenbergMarquardt(0.1), acceptance=bdhf.Backtracking(),
    )  # fmt: skip

    losses = [optimizer.step(case.batch).loss for _ in range(12)]

    assert all(after <= before for before, after in pairwise(losses))
    assert losses[-1] < losses[0]


def test_lockstep_rows_equal_separate_solves(problem):
    """Rows that stop at different times have the answers, iterates and counts of solves alone.

    One has no right-hand side, one a Krylov space of three vectors.
    """
    matrices, rhs, _ = problem
    rhs[2] = torch.zeros_like(rhs[2])
    values = torch.tensor([1.0, -2.0, 3.0, 1.0, -2.0, 3.0], dtype=torch.float64)
    matrices[0] = values.diag()
    solved = system(matrices, rhs, 0.1, keep_iterates=True)

    together = SaddleFree().solve(solved)

    pairs = zip(matrices, rhs, strict=True)
    alone = [SaddleFree().solve(system([a], [b], 0.1, keep_iterates=True)) for a, b in pairs]
    for x, single in zip(answers(together, solved), alone, strict=True):
        assert_close(x, single.x, rtol=1e-12, atol=1e-13)
    assert_close(together.model, torch.cat([single.model for single in alone]))
    assert together.iterations == tuple(single.iterations[0] for single in alone) == (3, 6, 0, 9)
    assert together.products == tuple(single.products[0] for single in alone) == (3, 6, 0, 9)
    assert together.stop == tuple(single.stop[0] for single in alone)
    assert_close(answers(together, solved)[0], absolute(matrices[0], rhs[0], 0.1))


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_complete_space_is_recognised_at_every_scale(scale, dtype):
    """Three distinct eigenvalues in a block of 300 take three products, of either precision."""
    values = scale * torch.tensor([1.0, -2.0, 3.0], dtype=dtype).repeat(100)
    rhs = torch.randn(300, generator=torch.Generator().manual_seed(2), dtype=dtype)

    solution = SaddleFree().solve(system([values.diag()], [rhs], scale))

    assert solution.products == (3,)
    assert_close(solution.x, rhs / (values.abs() + scale))


def test_the_basis_stays_orthogonal_on_an_ill_conditioned_matrix():
    """With eigenvalues over ten decades 60 products give the step of the whole block."""
    values = torch.logspace(-5, 5, 60, dtype=torch.float64)
    values[::2] *= -1
    rhs = torch.ones(60, dtype=torch.float64)

    solution = SaddleFree(60).solve(system([values.diag()], [rhs], 1e-2))

    assert solution.iterations == (60,)
    assert_close(solution.x, rhs / (values.abs() + 1e-2), rtol=1e-6, atol=0)


def test_a_block_is_complete_after_as_many_products_as_parameters():
    """The stop of a block of 9 after 9 products is "converged", though G is a little asymmetric."""
    noise = torch.randn(9, 9, generator=torch.Generator().manual_seed(7), dtype=torch.float64)

    solution = SaddleFree().solve(
        system([positive(9, 0) + 1e-6 * noise], [torch.ones(9, dtype=torch.float64)])
    )

    assert solution.stop == (Stop.CONVERGED,)
    assert solution.products == (9,)


def test_without_any_right_hand_side_nothing_is_multiplied():
    """With b = 0 in every row: x = 0 and φ = 0, stop "converged", and no product."""
    matrices = [positive(3, 0), positive(4, 1)]
    zeros = [torch.zeros(n, dtype=torch.float64) for n in (3, 4)]

    solution = SaddleFree().solve(replace(system(matrices, zeros), matrix=None))

    assert not solution.x.any()
    assert solution.model.tolist() == [0.0, 0.0]
    assert solution.products == (0, 0)
    assert solution.stop == (Stop.CONVERGED,) * 2


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [1e-20, 2.0, -2.0]])
def test_a_flat_direction_without_damping_is_left_out(values):
    """Where |θ| + λ is rounding no step is taken; in the other directions it is."""
    values = torch.tensor(values, dtype=torch.float64)
    flat = values.abs() < 1e-10

    solution = SaddleFree().solve(system([values.diag()], [torch.ones(3, dtype=torch.float64)]))

    expected = torch.where(flat, 0.0, 1.0 / values.abs().clamp(min=1e-10))
    assert_close(solution.x, expected)
    assert solution.model[0] <= 0


@pytest.mark.parametrize("scale", [1e-42, 1e30])
def test_a_step_that_is_not_finite_is_not_taken(scale):
    """In float32 a λ so small, or a right-hand side so long, gives "nonfinite" and x = 0."""
    matrix, rhs = scale * torch.eye(3), max(1.0, scale) * torch.ones(3)

    solution = SaddleFree().solve(system([matrix], [rhs], min(scale, 1.0)))

    assert torch.equal(solution.x, torch.zeros(3))
    assert solution.model.tolist() == [0.0]
    assert solution.stop == (Stop.NONFINITE,)


@pytest.mark.parametrize("where", ["rhs", "matrix"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_nan_stays_in_its_row(problem, where, bad):
    """A row that meets NaN or infinity rests without a step; the others end as without it."""
    matrices, rhs, _ = problem
    clean = SaddleFree().solve(system(matrices, rhs, 0.1))
    poisoned = rhs if where == "rhs" else matrices
    poisoned[1] = torch.full_like(poisoned[1], bad)
    solved = system(matrices, rhs, 0.1)

    solution = SaddleFree().solve(solved)

    assert solution.stop[1] is Stop.NONFINITE
    assert solution.model[1] == 0
    for b, (x, expected) in enumerate(
        zip(answers(solution, solved), answers(clean, solved), strict=True)
    ):
        assert torch.equal(x, torch.zeros_like(x) if b == 1 else expected)
    assert solution.stop[0] is clean.stop[0]
    assert solution.stop[2:] == clean.stop[2:]


def test_a_nan_at_a_later_product_keeps_the_answer_before_it(problem):
    """The third product of a row is NaN: its step is that of two products, with 3 counted."""
    matrices, rhs, solved = problem
    made = []

    def product(v, active):
        made.append(active)
        result = solved.matrix(v, active)
        if len(made) == 3:
            row = solved.blocks.rows[3]
            result[row.start : row.stop] = math.nan
        return result

    solution = SaddleFree().solve(replace(solved, matrix=product))

    assert solution.stop[3] is Stop.NONFINITE
    assert (solution.iterations[3], solution.products[3]) == (2, 3)
    assert_close(answers(solution, solved)[3], projected(matrices[3], rhs[3], DAMPINGS[3], 2))
    assert_close(answers(solution, solved)[1], absolute(matrices[1], rhs[1], DAMPINGS[1]))


@pytest.mark.parametrize("case", ["mlp", "classifier", "conv"])
@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
def test_single_precision_is_double_precision_within_its_tolerance(case, curvature):
    """The same step comes out in float32."""
    steps = []
    for dtype in (torch.float32, torch.float64):
        built = build(case, dtype=dtype)
        before = flat_parameters(built)
        optimizer = optimizer_of(
            built, curvature=CURVATURES[curvature][0], solver=SaddleFree(8), lr=1.0,
            damping=bdhf.Constant(0.1),
        )  # fmt: skip
        optimizer.step(built.batch)
        steps.append((flat_parameters(built) - before).double())

    assert_close(steps[0], steps[1], rtol=1e-3, atol=1e-4)


def test_the_optimizer_reports_its_products_and_starts_cold():
    """It makes k products with every block; the step after another is that of a fresh optimizer."""
    model, batch = regression(n=20)
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, solver=SaddleFree(4))
    optimizer.step(batch)
    before = [p.detach().clone() for p in model.parameters()]
    second = optimizer.step(batch)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), before, strict=True):
            parameter.copy_(value)

    fresh = bdhf.BlockHessianFree(model, F.mse_loss, solver=SaddleFree(4)).step(batch)

    assert second == fresh
    assert second.cg_iterations == (4, 4)
    assert second.products == pytest.approx(4)


@pytest.mark.parametrize("iterations", [2, 8, 1000])
def test_it_costs_its_products_and_its_orthogonalisation(iterations):
    """Σ_b k_b · (product with b) + Σ_b (2 n k² + 9 k³) / gradient, k_b at most n."""
    sweeps = Sweeps((0.5, 2.0), (3, 20), 2.0, 0.25, 0.0, 1.0, 100.0)
    counts = [min(iterations, 3), min(iterations, 20)]
    flops = sum(2 * n * k**2 + 9 * k**3 for n, k in zip((3, 20), counts, strict=True))

    cost = SaddleFree(iterations).cost(sweeps, 10)

    expected = 0.5 * counts[0] + 2.0 * counts[1] + 0.25 * counts[1] + flops / 1000
    assert cost == pytest.approx(expected)


@pytest.mark.parametrize("name", ["iterations", "check_every"])
def test_settings_out_of_range_are_errors(name):
    """A number of products below 1 is refused by name."""
    with pytest.raises(ValueError, match=naming("SaddleFree", name, 1, 0)):
        SaddleFree(**{name: 0})

"""Momentum by the quadratic model: minimisers over planes, against dense matrices."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import QuadraticMomentum, Stop
from bdhf.optim.solvers import Iterate, Solution
from bdhf.optim.update.momentum import coefficients
from tests.cases import CASES, build
from tests.optim.optimizers import optimizer_of
from tests.optim.partitions import PARTITIONS
from tests.optim.systems import SIZES, positive, system, textbook
from tests.oracles import blocked, dense_ggn, dense_gradient, flat_parameters

#: A few iterations from zero, so that the direction is not the answer.
SHORT = bdhf.CG(max_iters=2, tol=0, warm_start=0.0)


def minimiser(matrix, rhs, *directions):
    """The minimiser of ½ xᵀAx - rhsᵀx over a span, dense; parallel directions count once."""
    basis, sizes, _ = torch.linalg.svd(torch.stack(directions, 1), full_matrices=False)
    basis = basis[:, sizes > 1e-10 * sizes[0]]
    return basis @ torch.linalg.solve(basis.T @ matrix @ basis, basis.T @ rhs)


def phi(matrix, rhs, x):
    """½ xᵀAx - rhsᵀx."""
    return 0.5 * x @ matrix @ x - rhs @ x


@pytest.mark.parametrize(
    ("case", "partition"),
    [
        *((case, "per_layer") for case in CASES),
        *(("mlp", partition) for partition in PARTITIONS if partition != "per_layer"),
    ],
)
def test_an_update_minimises_every_blocks_model_over_direction_and_last_step(case, partition):
    """Δθ_b = lr (a d_b + b δ_b) with the dense solution of the block's own 2 × 2 problem."""
    case = build(case)
    parts = {"solver": SHORT, "damping": bdhf.Constant(0.05), "lr": 0.7, "check": False}
    optimizer = optimizer_of(case, partition, momentum=QuadraticMomentum(), **parts)
    points = [flat_parameters(case)]
    for _ in range(2):
        optimizer.step(case.batch)
        points.append(flat_parameters(case))
    last = points[-1] - points[-2]
    twin = copy.deepcopy(case)
    optimizer_of(twin, partition, **parts).step(twin.batch)
    direction = (flat_parameters(twin) - points[-1]) / 0.7
    matrix = blocked(dense_ggn(case), optimizer.blocks)
    matrix, rhs = matrix + 0.05 * torch.eye(len(matrix)).double(), -dense_gradient(case)
    expected = torch.zeros_like(last)
    for b in optimizer.blocks.positions():
        expected[b] = minimiser(matrix[b[:, None], b], rhs[b], direction[b], last[b])

    optimizer.step(case.batch)

    assert_close(flat_parameters(case) - points[-1], 0.7 * expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("outputs", [1, 3])
def test_steepest_descent_with_momentum_is_conjugate_gradients(outputs):
    """On linear least squares, update k gives the k-th iterate of CG on the normal equations."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(30, n, generator=generator).double() for n in (6, outputs))
    model = nn.Linear(6, outputs, bias=False).double()
    case = replace(build("mlp"), model=model, loss_fn=F.mse_loss, batch=(x, y))
    optimizer = bdhf.BlockHessianFree(
        model, F.mse_loss, partition=bdhf.Full(), damping=bdhf.Constant(0.0), lr=1.0,
        solver=bdhf.CG(max_iters=1, tol=0, warm_start=0.0), momentum=QuadraticMomentum(),
    )  # fmt: skip
    start = flat_parameters(case)
    iterates = textbook(dense_ggn(case), -dense_gradient(case), 6)

    for iterate, _ in iterates:
        optimizer.step((x, y))

        assert_close(flat_parameters(case), start + iterate)


def solved(system, xs, kept=()):
    """A solution with these directions, one a row, and its φ; `kept` are those of iterates."""
    iterates = []
    for rows in (*kept, xs):
        pairs = zip(system.blocks.rows, rows, strict=True)
        x, model = torch.cat(rows), []
        image = system.matrix(x, None)
        for (block, row), damping in zip(pairs, system.damping, strict=True):
            at = slice(block.start, block.stop)
            model.append(0.5 * row @ (image[at] + damping * row) - system.rhs[at] @ row)
        iterates.append(Iterate(x, torch.stack(model)))
    count = len(system.blocks.rows)
    last = iterates[-1]
    stop = (Stop.MAX_ITERS,) * count
    return Solution(last.x, last.model, (3,) * count, (3,) * count, stop, tuple(iterates))


def draws(seed, sizes=SIZES):
    """A random vector for every row."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes]


def dense_system():
    """Positive definite systems of several sizes with their damped matrices."""
    matrices, rhs = [positive(n, seed) for seed, n in enumerate(SIZES)], draws(1)
    damped = [m + 0.3 * torch.eye(len(m), dtype=m.dtype) for m in matrices]
    return system(matrices, rhs, damping=0.3), damped, rhs


def test_every_iterate_is_combined_and_has_its_phi():
    """Each candidate is the minimiser over the plane of its own direction; x stays the solver's."""
    problem, damped, rhs = dense_system()
    kept, answer, last = draws(2), draws(3), draws(4)
    solution = solved(problem, answer, [kept])

    combined = QuadraticMomentum().combine(problem, solution, torch.cat(last))

    for iterate, directions in zip(combined.iterates, (kept, answer), strict=True):
        rows = zip(damped, rhs, directions, last, strict=True)
        expected = [minimiser(*row) for row in rows]
        assert_close(iterate.x, torch.cat(expected))
        models = [phi(a, b, x) for a, b, x in zip(damped, rhs, expected, strict=True)]
        assert_close(iterate.model, torch.stack(models))
    assert combined.x is solution.x
    assert combined.model is solution.model
    assert combined.products == (4, 4, 4, 4)
    assert (combined.iterations, combined.stop) == (solution.iterations, solution.stop)


def test_the_combination_is_never_above_the_rescaled_direction_nor_above_the_direction():
    """φ(a d + b δ) ≤ min_a φ(a d) ≤ φ(d), in every block."""
    problem, _, _ = dense_system()
    solution, last = solved(problem, draws(3)), torch.cat(draws(4))

    both, alone = (QuadraticMomentum().combine(problem, solution, v) for v in (last, None))

    assert (both.iterates[-1].model < alone.iterates[-1].model).all()
    assert (alone.iterates[-1].model < solution.model).all()


def test_without_a_last_step_the_direction_is_scaled_to_its_minimum():
    """At the first update a = rhsᵀd / dᵀAd in every block, at no product."""
    problem, damped, rhs = dense_system()
    directions = draws(3)
    solution = solved(problem, directions)

    combined = QuadraticMomentum().combine(problem, solution, None)

    rows = zip(damped, rhs, directions, strict=True)
    assert_close(combined.iterates[-1].x, torch.cat([minimiser(*row) for row in rows]))
    assert combined.products == solution.products


def test_blocks_without_a_last_step_take_no_product():
    """The product is computed with the blocks where δ is not 0, and counted for them."""
    problem, damped, rhs = dense_system()
    directions, last, asked = draws(3), draws(4), []
    last[0].zero_(), last[2].zero_()

    def product(v, active):
        asked.append(active)
        return problem.matrix(v, active)

    momentum = QuadraticMomentum()
    watched = replace(problem, matrix=product)

    combined = momentum.combine(watched, solved(problem, directions), torch.cat(last))
    still = momentum.combine(watched, solved(problem, directions), 0 * torch.cat(last))

    rows = zip(damped, rhs, directions, last, strict=True)
    assert_close(combined.iterates[-1].x, torch.cat([minimiser(*row) for row in rows]))
    assert combined.products == (3, 4, 3, 4)
    assert still.products == (3, 3, 3, 3)
    assert asked == [[1, 3]]


#: Name -> (matrix, d, δ, the step in the span) for rhs (1, 2); what cannot be solved keeps to d.
PLANES = {
    "parallel": (torch.eye(2), (1.0, 0.0), (-2.0, 0.0), (1.0, 0.0)),
    "parallel to rounding": (torch.eye(2), (1.0, 0.0), (1.0, 1e-9), (1.0, 0.0)),
    "no direction": (torch.eye(2), (0.0, 0.0), (1.0, 1.0), (0.0, 0.0)),
    "indefinite": (torch.diag(torch.tensor([2.0, -1.0])), (1.0, 0.0), (1.0, 1.0), (0.5, 0.0)),
    "negative along d": (-torch.eye(2), (1.0, 0.5), (1.0, 1.0), (1.0, 0.5)),
    "flat along d": (torch.diag(torch.tensor([0.0, 1.0])), (3.0, 0.0), (0.0, 1.0), (3.0, 0.0)),
    "positive": (torch.eye(2), (1.0, 0.0), (1.0, 1.0), (1.0, 2.0)),
}


@pytest.mark.parametrize("plane", PLANES)
def test_a_plane_without_a_minimum_leaves_the_minimum_along_the_direction(plane):
    """Alone in its block: the row beside it is combined as ever, and every φ is that of its x."""
    matrix, d, last, expected = PLANES[plane]
    d, last, expected = (torch.tensor(v, dtype=torch.float64) for v in (d, last, expected))
    other, rhs = positive(2, 0), torch.tensor([1.0, 2.0], dtype=torch.float64)
    matrices = [matrix.double(), other]
    problem = system(matrices, [rhs, rhs])
    beside = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    solution = solved(problem, [d, beside[0]])

    combined = QuadraticMomentum().combine(problem, solution, torch.cat([last, beside[1]]))

    x = combined.iterates[-1].x
    assert_close(x[:2], expected)
    assert_close(x[2:], minimiser(other, rhs, *beside))
    models = [phi(a, rhs, v) for a, v in zip(matrices, x.split(2), strict=True)]
    assert_close(combined.iterates[-1].model, torch.stack(models))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_product_that_is_not_finite_leaves_its_block_without_momentum(bad):
    """No NaN reaches the step or its φ; the other blocks are combined."""
    problem, damped, rhs = dense_system()
    directions, last = draws(3), draws(4)
    solution = solved(problem, directions)

    def product(v, active):
        result = problem.matrix(v, active)
        result[: SIZES[0]] = bad
        return result

    broken = replace(problem, matrix=product)

    combined = QuadraticMomentum().combine(broken, solution, torch.cat(last))

    last[0] = 0 * last[0]
    rows = zip(damped, rhs, directions, last, strict=True)
    expected = [minimiser(*row) for row in rows]
    models = [phi(a, b, x) for a, b, x in zip(damped, rhs, expected, strict=True)]
    assert_close(combined.iterates[-1].x, torch.cat(expected))
    assert_close(combined.iterates[-1].model, torch.stack(models))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_model_that_is_not_finite_leaves_the_direction(bad):
    """Where the solver's φ is no number: a = 1, b = 0; beside it as ever."""
    curvature = torch.tensor([bad, 2.0])

    a, b = coefficients(curvature, torch.ones(2), torch.tensor([[0.0], [1.0], [3.0]]), 1e-7)

    assert (a.tolist(), b.tolist()) == ([1.0, 0.5], [0.0, 3.0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
def test_a_last_step_that_is_not_finite_leaves_its_block_without_momentum(bad):
    """Also one whose norm overflows; it is in no product."""
    problem, damped, rhs = dense_system()
    directions, last = draws(3), draws(4)
    last[1][2] = bad

    combined = QuadraticMomentum().combine(problem, solved(problem, directions), torch.cat(last))

    last[1] = 0 * directions[1]
    rows = zip(damped, rhs, directions, last, strict=True)
    assert_close(combined.iterates[-1].x, torch.cat([minimiser(*row) for row in rows]))
    assert combined.iterates[-1].model.isfinite().all()
    assert combined.products == (4, 3, 4, 4)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("sine", [1.0, 1e-2, 2e-3, 6e-4, 1e-4, 0.0])
@pytest.mark.parametrize("units", [-1, 0, 1])
def test_rounding_does_not_raise_phi_above_that_of_the_direction(sine, units, scale):
    """In float32, with dᵀAδ off by a rounding unit, for any angle and size: φ ≤ min_a φ(a d)."""
    cosine = (1 - sine**2) ** 0.5
    unit = scale * torch.ones(1)  # A = scale · I, d = (1, 0), δ = (cosine, sine), rhs = scale · 1
    eps = torch.finfo(torch.float32).eps
    along = scale * torch.tensor([[cosine * (1 + units * eps)], [1.0], [cosine + sine]])

    a, b = coefficients(unit, unit, along, eps)

    x = torch.stack([a + cosine * b.double(), sine * b.double()])
    assert 0.5 * (x * x).sum() - x.sum() <= -0.5 * (1 - 1e-3)

"""Lockstep conjugate gradients: every row is textbook CG on its own system."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from bdhf.optim import CG, Stop
from bdhf.optim.vectors import rows
from tests.messages import naming
from tests.optim.systems import SIZES, Diagonal, answers, positive, system, textbook

#: ⌈5 · 1.3^j⌉ up to 20, by hand.
SAVED = (5, 7, 9, 11, 15, 19)


@pytest.fixture
def problem():
    """Matrices and right-hand sides of four rows."""
    matrices = [positive(n, seed) for seed, n in enumerate(SIZES)]
    generator = torch.Generator().manual_seed(9)
    rhs = [torch.randn(n, generator=generator, dtype=torch.float64) for n in SIZES]
    return matrices, rhs


@pytest.mark.parametrize("iterations", [1, 2, 3])
@pytest.mark.parametrize("warm", [False, True])
def test_every_row_is_textbook_cg(problem, iterations, warm):
    """After i iterations each row holds the i-th textbook iterate, and φ of that iterate."""
    matrices, rhs = problem
    solved = system(matrices, rhs, damping=0.5)
    start = torch.linspace(-1, 1, sum(SIZES), dtype=torch.float64) if warm else None
    starts = [None] * 4 if start is None else start.clone().split(SIZES)

    solution = CG(max_iters=iterations, tol=0).solve(solved, start)

    for b, x in enumerate(answers(solution, solved)):
        damped = matrices[b] + 0.5 * torch.eye(SIZES[b], dtype=torch.float64)
        expected, model = textbook(damped, rhs[b], iterations, starts[b])[-1]
        assert_close(x, expected)
        assert_close(solution.model[b], model)
    assert solution.iterations == (iterations,) * 4
    assert solution.products == (iterations + warm,) * 4
    assert solution.stop == (Stop.MAX_ITERS,) * 4


@pytest.mark.parametrize("preconditioned", [False, True])
def test_lockstep_rows_equal_separate_solves(problem, preconditioned):
    """Rows that end at different times end as they would alone: iterates, count and reason.

    One row has no right-hand side, one meets negative curvature.
    """
    matrices, rhs = problem
    matrices[1] = matrices[1] - 5 * torch.eye(6, dtype=torch.float64)  # indefinite
    rhs[2] = torch.zeros_like(rhs[2])
    m = torch.linspace(1, 3, sum(SIZES), dtype=torch.float64) if preconditioned else None
    parts = [None] * 4 if m is None else m.split(SIZES)
    setting = {"max_iters": 200, "tol": 5e-4, "residual_tol": 1e-9}
    solved = system(matrices, rhs, keep_iterates=True)

    together = CG(**setting, preconditioner=Diagonal(m)).solve(solved)

    alone = [
        CG(**setting, preconditioner=Diagonal(part)).solve(system([a], [b], keep_iterates=True))
        for a, b, part in zip(matrices, rhs, parts, strict=True)
    ]
    for x, single in zip(answers(together, solved), alone, strict=True):
        assert_close(x, single.x, rtol=1e-9, atol=1e-12)
    assert_close(together.model, torch.cat([single.model for single in alone]))
    assert together.iterations == tuple(single.iterations[0] for single in alone)
    assert together.products == tuple(single.products[0] for single in alone)
    assert together.stop == tuple(single.stop[0] for single in alone)
    assert Stop.NEGATIVE_CURVATURE in together.stop
    assert len(set(together.iterations)) > 2
    for position, saved in enumerate(SAVED):
        if saved >= max(together.iterations):
            break
        for b, (row, single) in enumerate(zip(solved.blocks.rows, alone, strict=True)):
            own = single.iterates[position if saved < single.iterations[0] else -1]
            assert_close(together.iterates[position].x[row.start : row.stop], own.x)
            assert_close(together.iterates[position].model[b], own.model[0])
    assert position > 0


@pytest.mark.parametrize("diagonal", [1.0, torch.linspace(1, 5, 60, dtype=torch.float64)])
def test_iterates_are_kept_at_growing_distances(diagonal):
    """At 5, 7, 9, 11, 15, ... iterations, each with its φ, and the answer last."""
    matrix = positive(60, 3, condition=100)
    rhs = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    m = diagonal * torch.ones(60, dtype=torch.float64)

    solution = CG(max_iters=20, tol=0, preconditioner=Diagonal(m)).solve(
        system([matrix], [rhs], keep_iterates=True)
    )

    trace = textbook(matrix, rhs, 20, diagonal=m)
    assert len(solution.iterates) == len(SAVED) + 1
    for iterate, i in zip(solution.iterates, (*SAVED, 20), strict=True):
        assert_close(iterate.x, trace[i - 1][0])
        assert_close(iterate.model[0], trace[i - 1][1])
    assert torch.equal(solution.iterates[-1].x, solution.x)
    assert torch.equal(solution.iterates[-1].model, solution.model)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("max_iters", [1, 4, 5, 6, 7, 9, 12])
def test_the_answer_is_listed_once(kept, max_iters):
    """An answer at an iteration that is kept anyway does not come twice; unasked, it is alone."""
    matrix = positive(60, 3, condition=1e4)
    rhs = torch.ones(60, dtype=torch.float64)

    solution = CG(max_iters=max_iters, tol=0).solve(system([matrix], [rhs], keep_iterates=kept))

    assert len(solution.iterates) == 1 + kept * sum(saved < max_iters for saved in SAVED)


def test_the_answer_of_rows_that_ended_early_is_listed_once():
    """Rows that converge at an iteration that is kept: no two iterates are the same point."""
    matrix = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64).diag()

    solution = CG(max_iters=50, tol=0, residual_tol=1e-9).solve(
        system([matrix], [torch.ones(5, dtype=torch.float64)], keep_iterates=True)
    )

    assert solution.iterations == (5,)
    assert len(solution.iterates) == 1


def test_converged_rows_solve_their_damped_systems(problem):
    """With a residual tolerance every row ends at (A + λI)⁻¹ b, with stop "converged"."""
    matrices, rhs = problem
    solved = system(matrices, rhs, damping=0.1)

    solution = CG(max_iters=500, tol=0, residual_tol=1e-12).solve(solved)

    for b, x in enumerate(answers(solution, solved)):
        damped = matrices[b] + 0.1 * torch.eye(SIZES[b], dtype=torch.float64)
        assert_close(x, torch.linalg.solve(damped, rhs[b]), rtol=1e-8, atol=1e-8)
    assert set(solution.stop) == {Stop.CONVERGED}


def test_a_row_without_a_right_hand_side_costs_nothing():
    """A right-hand side of 0 has the solution 0, without a product."""
    rhs = [torch.zeros(3, dtype=torch.float64), torch.ones(4, dtype=torch.float64)]

    solution = CG().solve(system([positive(3, 0), positive(4, 1)], rhs))

    assert solution.products[0] == 0
    assert solution.stop[0] is Stop.CONVERGED
    assert torch.equal(solution.x[:3], rhs[0])


def test_a_warm_start_at_the_damped_solution_is_recognised(problem):
    """The first residual includes the damping: started at the solution, CG takes no step."""
    matrices, rhs = problem
    eye = [0.3 * torch.eye(n, dtype=torch.float64) for n in SIZES]
    exact = [torch.linalg.solve(m + e, b) for m, e, b in zip(matrices, eye, rhs, strict=True)]

    solution = CG(residual_tol=1e-9).solve(system(matrices, rhs, damping=0.3), torch.cat(exact))

    assert solution.iterations == (0,) * 4
    assert solution.products == (1,) * 4
    assert solution.stop == (Stop.CONVERGED,) * 4


def test_progress_stop_is_martens_rule():
    """CG ends at the first i > k with (φ_i - φ_{i-k}) / φ_i < k · tol, k = max(10, ⌈0.1 i⌉)."""
    matrix = positive(60, 3, condition=1e4)
    rhs = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tol = 2e-3

    solution = CG(max_iters=200, tol=tol).solve(system([matrix], [rhs]))

    models = [0.0] + [float(model) for _, model in textbook(matrix, rhs, 200)]
    span = [max(10, math.ceil(0.1 * i)) for i in range(201)]
    first = next(
        i
        for i in range(1, 201)
        if i > span[i] and (models[i] - models[i - span[i]]) / models[i] < span[i] * tol
    )
    assert solution.iterations == (first,)
    assert 11 < first < 200
    assert solution.stop == (Stop.PROGRESS,)


def test_negative_curvature_at_the_first_iteration_takes_a_bounded_gradient_step():
    """Without a warm start x = b / (|pᵀAp| / pᵀp + λ), and φ is the model there."""
    matrix = -2.0 * torch.eye(3, dtype=torch.float64)
    rhs = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    solution = CG().solve(system([matrix], [rhs], damping=0.5))

    damped = matrix + 0.5 * torch.eye(3, dtype=torch.float64)
    assert_close(solution.x, rhs / (1.5 + 0.5))
    assert_close(solution.model[0], 0.5 * solution.x @ damped @ solution.x - rhs @ solution.x)
    assert solution.stop == (Stop.NEGATIVE_CURVATURE,)


def test_negative_curvature_later_keeps_the_last_iterate():
    """The row stops at the iterate before the direction of negative curvature."""
    matrix = torch.tensor([4.0, 1.0, -0.5], dtype=torch.float64).diag()
    rhs = torch.tensor([1.0, 1.0, 0.2], dtype=torch.float64)
    steps = textbook(matrix, rhs, 3)

    solution = CG(residual_tol=1e-12).solve(system([matrix], [rhs]))

    assert 1 <= len(steps) < 3  # the negative direction comes after the first, before the end
    assert solution.iterations == (len(steps),)
    assert solution.products == (len(steps) + 1,)
    assert_close(solution.x, steps[-1][0])
    assert_close(solution.model[0], steps[-1][1])
    assert solution.stop == (Stop.NEGATIVE_CURVATURE,)


def test_negative_curvature_at_a_warm_start_keeps_a_start_below_zero():
    """Where φ of the start is below 0 there is an iterate to keep: no gradient step is taken."""
    matrix = -2.0 * torch.eye(3, dtype=torch.float64)
    rhs = torch.ones(3, dtype=torch.float64)
    start = torch.tensor([0.1, 0.0, -0.1], dtype=torch.float64)
    model = 0.5 * start @ matrix @ start - rhs @ start
    assert model < 0

    solution = CG().solve(system([matrix], [rhs]), start.clone())

    assert torch.equal(solution.x, start)
    assert_close(solution.model[0], model)
    assert solution.iterations == (0,)
    assert solution.products == (2,)
    assert solution.stop == (Stop.NEGATIVE_CURVATURE,)


@pytest.mark.parametrize("first", [-0.1, -1.0])
def test_negative_curvature_at_a_warm_start_drops_a_start_above_zero(first):
    """Where φ of the start is not below 0 the row moves nothing: x = 0, φ = 0."""
    matrix = -2.0 * torch.eye(3, dtype=torch.float64)
    rhs = torch.ones(3, dtype=torch.float64)
    start = torch.tensor([first, 0.0, 0.0], dtype=torch.float64)
    assert 0.5 * start @ matrix @ start - rhs @ start >= 0

    solution = CG().solve(system([matrix], [rhs]), start)

    assert torch.equal(solution.x, torch.zeros(3, dtype=torch.float64))
    assert solution.model.tolist() == [0.0]
    assert solution.stop == (Stop.NEGATIVE_CURVATURE,)


def test_a_cold_row_of_a_warm_solve_leaves_the_saddle():
    """A row with a start of 0 takes the bounded gradient step of a cold solve."""
    matrices = [-2.0 * torch.eye(3, dtype=torch.float64), positive(4, 0)]
    rhs = [torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), torch.ones(4, dtype=torch.float64)]
    start = torch.tensor([0.0] * 3 + [0.1] * 4, dtype=torch.float64)

    solution = CG().solve(system(matrices, rhs, damping=0.5), start)

    cold = CG().solve(system(matrices[:1], rhs[:1], damping=0.5))
    assert_close(solution.x[:3], rhs[0] / (1.5 + 0.5))
    assert_close(solution.x[:3], cold.x)
    assert_close(solution.model[0], cold.model[0])
    assert solution.stop[0] is Stop.NEGATIVE_CURVATURE
    assert solution.stop[1] is not Stop.NEGATIVE_CURVATURE


@pytest.mark.parametrize("scale", [0.0, 1e-42])
def test_curvature_too_small_for_a_finite_step_takes_none(scale):
    """Without damping along a flat direction x stays where it is, and finite."""
    matrix = scale * torch.eye(3)

    solution = CG().solve(system([matrix], [torch.ones(3)]))

    assert torch.equal(solution.x, torch.zeros(3))
    assert solution.stop[0] in (Stop.NEGATIVE_CURVATURE, Stop.NONFINITE)


def test_no_progress_is_claimed_above_phi_zero():
    """From a far start φ > 0: Martens' rule has no effect until φ is below 0."""
    matrix = positive(60, 3, condition=1e4)
    rhs = torch.ones(60, dtype=torch.float64)
    start = 1e3 * torch.ones(60, dtype=torch.float64)
    models = [float(model) for _, model in textbook(matrix, rhs, 20, start)]
    assert models[-1] > 0

    solution = CG(max_iters=20, tol=5e-4).solve(system([matrix], [rhs]), start)

    assert solution.stop == (Stop.MAX_ITERS,)


def test_the_span_of_the_progress_rule_grows_with_the_iterations():
    """Beyond 100 iterations k = ⌈0.1 i⌉: the rule with that k determines the stop."""
    matrix = torch.logspace(0, 5, 300, dtype=torch.float64).diag()
    rhs = torch.ones(300, dtype=torch.float64)
    models = [0.0] + [float(model) for _, model in textbook(matrix, rhs, 290)]
    tol = 5e-4

    def first(span):
        return next(
            i
            for i in range(12, 290)
            if i > span(i) and (models[i] - models[i - span(i)]) / models[i] < span(i) * tol
        )

    grown, fixed = first(lambda i: max(10, math.ceil(0.1 * i))), first(lambda i: 10)
    assert grown > fixed + 5 > 105

    solution = CG(max_iters=290, tol=tol).solve(system([matrix], [rhs]))

    assert abs(solution.iterations[0] - grown) <= 1  # the true residual enters at 50, 100, ...
    assert solution.stop == (Stop.PROGRESS,)


def test_the_true_residual_is_taken_every_50_iterations_and_counted():
    """120 iterations cost 122 products; the residual after one is that of the iterate."""
    matrix = positive(300, 4, condition=1e6)
    rhs = torch.ones(300, dtype=torch.float64)

    long = CG(max_iters=120, tol=0).solve(system([matrix], [rhs]))
    short = CG(max_iters=50, tol=0).solve(system([matrix], [rhs]))

    assert long.products == (122,)
    assert short.products == (50,)  # nothing follows that could use it


@pytest.mark.parametrize("where", ["rhs", "matrix"])
@pytest.mark.parametrize("warm", [False, True])
def test_a_nan_stays_in_its_row(problem, where, warm):
    """A row that meets a NaN rests without a step; the others end as if it were not there."""
    matrices, rhs = problem
    cg = CG(max_iters=8, tol=0)

    def solve(solved):
        start = torch.ones(sum(SIZES), dtype=torch.float64) if warm else None
        return cg.solve(solved, start)

    clean = solve(system(matrices, rhs))
    poisoned = rhs if where == "rhs" else matrices
    poisoned[1] = torch.full_like(poisoned[1], math.nan)
    solved = system(matrices, rhs)

    solution = solve(solved)

    assert solution.stop[1] is Stop.NONFINITE
    for b, (x, expected) in enumerate(
        zip(answers(solution, solved), answers(clean, solved), strict=True)
    ):
        assert torch.equal(x, torch.zeros_like(x) if b == 1 else expected)


def test_the_true_residual_bounds_the_drift_of_single_precision():
    """In float32 on an ill-conditioned system, the answer's true residual is what CG reported."""
    matrix = positive(40, 5, condition=3e3).float()
    rhs = torch.randn(40, generator=torch.Generator().manual_seed(2))

    solution = CG(max_iters=400, tol=0, residual_tol=1e-4).solve(system([matrix], [rhs]))

    assert solution.stop == (Stop.CONVERGED,)
    assert (rhs - matrix @ solution.x).norm() <= 2e-4 * rhs.norm()


def test_float64_dots_keep_what_float32_cancels():
    """Where pᵀAp is a small difference of large terms, the step is that of a float64 solve."""
    entries = torch.tensor([3e8, 1.0, -3e8, 1.0]).repeat(50)

    def step(dtype, **setting):
        solved = system([torch.eye(200)], [torch.ones(200, dtype=dtype)])
        solved = replace(solved, matrix=lambda v, active: entries.to(dtype) * v)
        return CG(max_iters=1, **setting).solve(solved)

    exact, single = step(torch.float64), step(torch.float32)
    double = step(torch.float32, float64_dots=True)

    assert double.x.dtype == torch.float32
    assert double.model.dtype == torch.float64
    assert_close(double.x.double(), exact.x, rtol=1e-6, atol=0)
    assert_close(double.model, exact.model, rtol=1e-6, atol=0)
    assert (single.x.double() - exact.x).norm() > 1e-3 * exact.x.norm()


@pytest.mark.parametrize("shape", [(1, 1000), (3, 100), (50, 7), (2, 16), (1, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inner_products_do_not_depend_on_the_slabs(monkeypatch, shape, dtype):
    """Rows that are longer than a slab, and slabs of many rows, sum up to ⟨a, b⟩ of each row."""
    a, b = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    exact = (a.double() * b.double()).sum(1)
    monkeypatch.setattr(rows, "SLAB_CPU", 16)

    computed = rows.dots(a, b, dtype)

    assert computed.dtype == dtype
    precision = 1e-14 if dtype == torch.float64 else 1e-6
    size = (a.double() * b.double()).abs().sum(1)
    assert ((computed.double() - exact).abs() <= precision * size).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_rows_are_set_to_zero_whatever_is_in_them(dtype):
    """NaN and infinity become 0, and the other rows do not change."""
    matrix = torch.tensor([[math.nan, 1], [math.nan, math.inf], [2, 3]], dtype=dtype)
    expected = torch.tensor([[math.nan, 1], [0, 0], [2, 3]], dtype=dtype)

    rows.zero_rows_(matrix, torch.tensor([False, True, False]))

    assert_close(matrix, expected, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize(
    "setting",
    [
        {"max_iters": 0},
        {"check_every": 0},
        {"tol": -1.0},
        {"residual_tol": math.nan},
        {"warm_start": math.inf},
    ],
)
def test_settings_out_of_range_are_errors(setting):
    """A setting that CG cannot use is refused where it is given, by name."""
    with pytest.raises(ValueError, match=naming("CG", next(iter(setting)))):
        CG(**setting)

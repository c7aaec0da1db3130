"""Recycled Ritz vectors: Rayleigh-Ritz by dense matrices, and the iterations that they save."""

import pytest
import torch
from torch.testing import assert_close

import bdhf
from bdhf.optim import CG, Recycled
from bdhf.optim.solvers.preconditioners.ritz import ritz_pairs
from tests.cases import build
from tests.messages import naming
from tests.optim.optimizers import optimizer_of
from tests.optim.systems import dense_inverses, positive, seeded, spectrum

SIZES = (12, 12, 4, 30)


def right_sides(sizes, seed=0):
    """Random vectors, one a block."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes]


def largest(matrix, basis, count):
    """The largest Ritz pairs of a dense matrix on an orthonormal basis, as Σ θ u uᵀ."""
    values, vectors = torch.linalg.eigh(basis.T @ matrix @ basis)
    u = basis @ vectors[:, -count:]
    return u @ values[-count:].clamp_min(0).diag() @ u.T


def outer(w):
    """Σ w wᵀ of rows w."""
    return w.T @ w


def krylov(matrix, rhs, steps):
    """An orthonormal basis of the Krylov space of a matrix and a vector."""
    columns = [rhs / rhs.norm()]
    for _ in range(steps - 1):
        columns.append(matrix @ columns[-1])
        columns[-1] /= columns[-1].norm()
    return torch.linalg.qr(torch.stack(columns, 1))[0]


@pytest.mark.parametrize("damping", [0.0, 5.0])
def test_the_first_pairs_are_those_of_the_krylov_space(damping):
    """The largest three of G, not of G + λI, after six iterations; all of a block of four."""
    matrices = [positive(n, seed) for seed, n in enumerate(SIZES)]
    rhs = right_sides(SIZES)
    solved = seeded(matrices, rhs, damping)

    solution = CG(max_iters=6, tol=0, preconditioner=Recycled(vectors=3)).solve(solved)

    for matrix, b, row in zip(matrices, rhs, solved.blocks.rows, strict=True):
        w = solution.memory[:, row.start : row.stop]
        expected = largest(matrix, krylov(matrix, b, min(6, row.size)), 3)
        assert_close(outer(w), expected, rtol=1e-5, atol=1e-5)


def test_the_first_solve_is_plain():
    """M = I: the same iterates as without a preconditioner, bit for bit, and no more products."""
    matrices = [positive(n, seed) for seed, n in enumerate(SIZES)]
    solved = seeded(matrices, right_sides(SIZES), 0.1)

    plain = CG(max_iters=5, tol=0).solve(solved)
    recycled = CG(max_iters=5, tol=0, preconditioner=Recycled()).solve(solved)

    assert torch.equal(recycled.x, plain.x)
    assert recycled.products == plain.products
    assert plain.memory is None
    assert recycled.memory.shape == (10, sum(SIZES))


def test_pairs_of_before_count_where_the_solve_has_not_multiplied():
    """G is exact on the directions Q and between them and the rest, and Ĝ on the rest."""
    before, now = positive(20, 1, 50), positive(20, 2, 50)
    values, vectors = torch.linalg.eigh(before)
    w = (vectors[:, -4:] * values[-4:].sqrt()).T
    p = torch.randn(5, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    made = ritz_pairs(p[None], (p @ now)[None], w[None], 6)[0]

    q = torch.linalg.qr(p.T)[0]
    inside = q @ q.T
    outside = torch.eye(20, dtype=torch.float64) - inside
    model = now - outside @ now @ outside + outside @ outer(w) @ outside
    basis = torch.linalg.qr(torch.cat([p, w]).T)[0]
    assert_close(outer(made), largest(model, basis, 6), rtol=0, atol=1e-8)


def test_directions_that_depend_on_each_other_change_nothing():
    """Twice the same ones, and zeros, give the same pairs."""
    matrix = positive(20, 1, 50)
    p = torch.randn(5, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    more = torch.cat([p, torch.zeros(2, 20, dtype=torch.float64), 3 * p])
    none = p[None, :0]

    made = ritz_pairs(p[None], (p @ matrix)[None], none, 8)[0]
    other = ritz_pairs(more[None], (more @ matrix)[None], none, 8)[0]

    assert_close(outer(made), outer(other), rtol=0, atol=1e-8)
    assert_close(made[5:], torch.zeros(3, 20, dtype=torch.float64))


def test_m_is_its_formula():
    """M⁻¹ = (θ_k + λ) U(Θ + λI)⁻¹Uᵀ + (I - UUᵀ), for the pairs of the memory and λ of now."""
    matrices = [positive(n, seed) for seed, n in enumerate(SIZES)]
    cg = CG(max_iters=6, tol=0, preconditioner=Recycled(vectors=3))
    memory = cg.solve(seeded(matrices, right_sides(SIZES), 0.5)).memory
    solved = seeded(matrices, right_sides(SIZES, 1), 0.1, memory=memory)

    inverses = dense_inverses(Recycled(vectors=3), solved)

    for inverse, row in zip(inverses, solved.blocks.rows, strict=True):
        w = memory[:, row.start : row.stop]
        theta = w.square().sum(1)
        u = (w / theta.sqrt()[:, None]).T
        scaled = u @ ((theta[2] + 0.1) / (theta + 0.1)).diag() @ u.T
        beyond = torch.eye(row.size, dtype=torch.float64) - u @ u.T
        assert_close(inverse, scaled + beyond, rtol=0, atol=1e-10)
        assert torch.linalg.eigvalsh(inverse).min() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_m_is_positive_definite_whatever_the_matrix(dtype):
    """Indefinite, of twelve orders of magnitude or rank-deficient: after five solves."""
    spectra = [
        torch.linspace(-5, 20, 40),
        torch.logspace(6, -6, 40),
        torch.cat([torch.logspace(6, 0, 5), torch.zeros(35)]),
    ]
    matrices = [spectrum(v, seed).to(dtype) for seed, v in enumerate(spectra)]
    part, memory = Recycled(vectors=6), None
    for update in range(5):
        rhs = [b.to(dtype) for b in right_sides([40] * 3, update)]
        solved = seeded(matrices, rhs, 1e-3, memory=memory)
        memory = CG(max_iters=20, tol=0, preconditioner=part).solve(solved).memory

    for inverse in dense_inverses(part, seeded(matrices, rhs, 1e-3, memory=memory)):
        assert_close(inverse, inverse.T, rtol=0, atol=8 * torch.finfo(dtype).eps)
        assert torch.linalg.eigvalsh(inverse.double()).min() > 0


def test_later_solves_with_the_same_matrix_take_fewer_iterations():
    """Eight large eigenvalues above a rest: each later solve takes less than half as many."""
    values = torch.cat([torch.logspace(2, 4, 8), torch.linspace(0.5, 1, 192)])
    matrices = [spectrum(values, seed) for seed in range(2)]
    cg = CG(max_iters=200, tol=0, residual_tol=1e-8, preconditioner=Recycled())
    memory, counts = None, []
    for update in range(4):
        solved = seeded(matrices, right_sides([200] * 2, update), 1e-2, memory=memory)
        solution = cg.solve(solved)
        memory = solution.memory
        counts.append(max(solution.iterations))

    dense = [m + 1e-2 * torch.eye(200, dtype=torch.float64) for m in matrices]
    exact = [torch.linalg.solve(m, b) for m, b in zip(dense, solved.rhs.split(200), strict=True)]
    assert max(counts[1:]) < 0.5 * counts[0]
    assert_close(solution.x, torch.cat(exact), rtol=1e-6, atol=1e-6)


def test_few_iterations_gather_pairs_over_updates():
    """Ten iterations on a decaying spectrum: later solves fall further, the fifth 4 times."""
    matrix = spectrum(torch.logspace(3, -3, 200), 0)
    (b,) = right_sides([200])
    cg = CG(max_iters=10, tol=0, preconditioner=Recycled(vectors=30))
    memory, models = None, []
    for _ in range(5):
        solution = cg.solve(seeded([matrix], [b], 1e-2, memory=memory))
        memory = solution.memory
        models.append(float(solution.model))

    assert max(models[1:]) < models[0] < 0
    assert models[-1] < 4 * models[0]


def test_blocks_are_solved_alone():
    """Over three solves, rows that stop at different times equal separate systems."""
    matrices = [positive(n, seed, 10.0 ** (2 * seed)) for seed, n in enumerate(SIZES)]
    cg = CG(max_iters=40, tol=0, residual_tol=1e-6, preconditioner=Recycled(3, 8))
    memory, alone = None, [None] * 4
    for update in range(3):
        rhs = right_sides(SIZES, update)
        together = cg.solve(seeded(matrices, rhs, 0.01, memory=memory))
        memory = together.memory
        apart = [
            cg.solve(seeded([m], [b], 0.01, memory=kept))
            for m, b, kept in zip(matrices, rhs, alone, strict=True)
        ]
        alone = [solution.memory for solution in apart]

    assert len({*together.iterations}) > 1
    assert together.iterations == tuple(solution.iterations[0] for solution in apart)
    assert_close(together.x, torch.cat([solution.x for solution in apart]), rtol=1e-6, atol=1e-8)


def test_the_hessian_may_be_recycled():
    """Pairs of positive eigenvalues only; training goes on."""
    case = build("mlp")
    solver = CG(max_iters=10, preconditioner=Recycled(vectors=4))
    optimizer = optimizer_of(
        case, solver=solver, curvature=bdhf.Hessian(), damping=bdhf.Constant(0.1)
    )

    losses = [optimizer.step(case.batch).loss for _ in range(5)]

    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["vectors", "directions"])
def test_settings_below_one_are_errors(name):
    """They name the argument and its value."""
    with pytest.raises(ValueError, match=naming("Recycled", name, 1, 0)):
        Recycled(**{name: 0})

"""The Nyström preconditioner against dense matrices, its sketches, and what it refuses."""

import pytest
import torch
from torch.testing import assert_close

import bdhf
from bdhf.optim import CG, CurvatureError, Nystrom
from bdhf.optim.solvers.preconditioners.low_rank import stacks
from tests.cases import build
from tests.messages import naming
from tests.optim.optimizers import optimizer_of
from tests.optim.systems import dense_inverses, positive, seeded, spectrum

SIZES = (12, 12, 4, 30)


def right_sides(sizes, seed=0):
    """Random vectors, one a block."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes]


def four_blocks(damping=0.3, **fields):
    """Matrices of four blocks, and their system."""
    matrices = [positive(n, seed, 1e3) for seed, n in enumerate(SIZES)]
    return matrices, seeded(matrices, right_sides(SIZES), damping, **fields)


def dense_nystrom(matrix, test):
    """Y (ΩᵀY)⁻¹ Yᵀ with Y = GΩ, for rows Ωᵀ."""
    y = matrix @ test.T
    return y @ torch.linalg.solve(test @ y, y.T)


def test_the_sketch_is_the_nystrom_approximation():
    """Σ w wᵀ is Y (ΩᵀY)⁻¹ Yᵀ of a random orthonormal Ω; a block smaller than the rank is exact."""
    matrices, solved = four_blocks()
    part = Nystrom(rank=6)

    w = part.sketch(solved)

    test = part._test_matrix(solved)
    for index, row in enumerate(solved.blocks.rows):
        columns = min(6, row.size)
        omega = test[:columns, row.start : row.stop]
        approximation = w[:, row.start : row.stop].T @ w[:, row.start : row.stop]
        assert_close(omega @ omega.T, torch.eye(columns, dtype=torch.float64))
        assert_close(approximation, dense_nystrom(matrices[index], omega), rtol=1e-8, atol=1e-8)
    assert_close(w[:, 24:28].T @ w[:, 24:28], matrices[2])
    for stack in stacks(solved.blocks, w):
        gram = stack @ stack.mT
        assert_close(gram, torch.diag_embed(gram.diagonal(dim1=1, dim2=2)), rtol=0, atol=1e-8)


def test_m_is_the_formula_of_the_paper():
    """M⁻¹ = (λ̂_r + λ) U(Λ̂ + λI)⁻¹Uᵀ + (I - UUᵀ), for the eigenpairs of the approximation."""
    _, solved = four_blocks()
    part = Nystrom(rank=6)

    inverses = dense_inverses(part, solved)

    w = part.sketch(solved)
    for inverse, row in zip(inverses, solved.blocks.rows, strict=True):
        rank = min(6, row.size)
        values, vectors = torch.linalg.eigh(
            w[:, row.start : row.stop].T @ w[:, row.start : row.stop]
        )
        u, theta = vectors[:, -rank:], values[-rank:]
        range_part = u @ ((theta[0] + 0.3) / (theta + 0.3)).diag() @ u.T
        beyond = torch.eye(row.size, dtype=torch.float64) - u @ u.T
        assert_close(inverse, range_part + beyond, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_m_is_symmetric_and_positive_definite(dtype):
    """Also over twelve orders of magnitude of eigenvalues, of G and of rank-deficient ones."""
    values = [torch.logspace(6, -6, 40), torch.cat([torch.logspace(6, 0, 5), torch.zeros(35)])]
    matrices = [spectrum(v, seed).to(dtype) for seed, v in enumerate(values)]
    solved = seeded(matrices, [torch.ones(40, dtype=dtype)] * 2, 1e-3)

    for inverse in dense_inverses(Nystrom(rank=20), solved):
        assert_close(inverse, inverse.T, rtol=0, atol=8 * torch.finfo(dtype).eps)
        assert torch.linalg.eigvalsh(inverse.double()).min() > 0


def test_a_sketch_as_large_as_the_block_solves_it_at_once():
    """M is then G + λI, up to a factor; every block in one or two iterations."""
    _, solved = four_blocks(damping=1e-2)

    solution = CG(tol=0, residual_tol=1e-8, preconditioner=Nystrom(rank=50)).solve(solved)

    assert max(solution.iterations) <= 2
    assert {*solution.stop} == {bdhf.optim.Stop.CONVERGED}


def test_large_eigenvalues_above_a_flat_rest_cost_no_iterations():
    """Twenty of them take plain CG over thirty iterations, and the sketch a handful."""
    values = torch.cat([torch.logspace(3, 6, 20), torch.ones(180)])
    matrices = [spectrum(values, seed) for seed in range(3)]
    solved = seeded(matrices, right_sides([200] * 3), 1e-2)
    setting = {"max_iters": 200, "tol": 0, "residual_tol": 1e-6}

    plain = CG(**setting).solve(solved)
    sketched = CG(**setting, preconditioner=Nystrom(rank=40)).solve(solved)

    assert min(plain.iterations) > 30
    assert max(sketched.iterations) <= 8
    assert_close(sketched.x, plain.x, rtol=1e-3, atol=1e-5)


def test_products_of_the_sketch_are_counted_when_it_is_made():
    """Each block has the rank, or its size, more than iterations; none at the next update."""
    _, solved = four_blocks()
    cg = CG(max_iters=3, tol=0, preconditioner=Nystrom(rank=6, refresh=2))

    first = cg.solve(solved)
    _, later = four_blocks(memory=first.memory, updates=1)
    second = cg.solve(later)
    _, last = four_blocks(memory=first.memory, updates=2)
    third = cg.solve(last)

    spent = [6, 6, 4, 6]
    assert first.products == tuple(n + i for n, i in zip(spent, first.iterations, strict=True))
    assert second.products == second.iterations
    assert second.memory is None
    assert torch.equal(first.x, second.x)
    assert third.products == first.products
    assert cg.products(solved.blocks) == 6 + CG(max_iters=3).products(solved.blocks)


def test_an_update_keeps_its_sketch_until_the_next_one_is_due():
    """With `refresh` 3 the state changes at the updates 0 and 3; its products cost FLOPs."""
    case = build("mlp")
    solver = CG(max_iters=2, tol=0, preconditioner=Nystrom(rank=5, refresh=3))
    optimizer = optimizer_of(case, solver=solver)
    first = optimizer.objective.parameters[0]

    infos, kept = [], []
    for _ in range(4):
        infos.append(optimizer.step(case.batch))
        kept.append(optimizer.state[first]["memory"].clone())

    assert [torch.equal(kept[0], later) for later in kept] == [True, True, True, False]
    assert kept[0].shape == (5, *first.shape)
    assert infos[0].products == pytest.approx(infos[1].products - 1 + 5)  # 1: the warm start
    assert infos[0].gradient_equivalents > infos[1].gradient_equivalents + 2


def test_the_hessian_is_refused_when_the_optimizer_is_built():
    """It names what else to use."""
    solver = CG(preconditioner=Nystrom())

    with pytest.raises(ValueError, match=naming("Nystrom", "Hessian", "Recycled", "GGN")):
        optimizer_of(build("mlp"), solver=solver, curvature=bdhf.Hessian())


def test_a_matrix_with_negative_eigenvalues_is_refused():
    """It names the block; a little below zero, as rounding makes it, is no reason."""
    matrices = [positive(6, 0), spectrum([3.0, 2, 1, 1, -0.01, -0.01], 1), -positive(6, 2)]
    solved = seeded(matrices, right_sides([6] * 3), 0.1)

    with pytest.raises(CurvatureError, match=naming("Nystrom", "block 2", "Recycled", "GGN")):
        Nystrom(rank=6)(solved)
    lightly = seeded(matrices[:2], right_sides([6] * 2), 0.1)
    for inverse in dense_inverses(Nystrom(rank=6), lightly):
        assert torch.linalg.eigvalsh(inverse).min() > 0


@pytest.mark.parametrize("name", ["rank", "refresh"])
def test_settings_below_one_are_errors(name):
    """They name the argument and its value."""
    with pytest.raises(ValueError, match=naming("Nystrom", name, 1, 0)):
        Nystrom(**{name: 0})

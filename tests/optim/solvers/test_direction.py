"""The solver `direction`: d = M⁻¹ rhs, its φ, and what it costs."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch.testing import assert_close

import bdhf
from bdhf.experiments.parts import tables
from bdhf.experiments.parts.problems_and_arms import resolve_arm, resolve_problem
from bdhf.optim import EKFAC, KFAC, Direction, Martens, NoPreconditioner, Stop
from bdhf.optim.estimate import estimate
from bdhf.optim.solvers import Inverse
from tests.cases import build
from tests.messages import naming
from tests.optim.optimizers import optimizer_of
from tests.optim.preconditioned import damping_of, deep_linear, dense_inverse, system_of, wide
from tests.optim.systems import Diagonal, positive, system
from tests.oracles import cut, dense_ggn, dense_gradient, flat_parameters

#: One for every line of the table.
PRECONDITIONERS = {
    "none": NoPreconditioner(),
    "martens": Martens(),
    "kfac": KFAC("exact", uncovered="diagonal"),
    "ekfac": EKFAC("exact", uncovered="diagonal"),
    "nystrom": bdhf.Nystrom(3),
    "recycled": bdhf.Recycled(3),
}


def solve(solver, solved):
    """Solve without recording a graph, as an update does."""
    with torch.no_grad():
        return solver.solve(solved)


def test_every_preconditioner_of_the_table_is_tested():
    """A new line needs one here."""
    assert set(PRECONDITIONERS) == set(tables.PRECONDITIONERS)


@pytest.mark.parametrize("preconditioner", PRECONDITIONERS)
@pytest.mark.parametrize("model", ["matrix", "preconditioner"])
@pytest.mark.parametrize(
    ("case", "partition"),
    [("mlp", "per_layer"), ("tied", "full"), ("conv", "neighbours"), ("gru", "thirds")],
)
def test_the_direction_is_that_of_the_inverse(case, partition, preconditioner, model):
    """In every block d = M⁻¹ rhs with the dense M⁻¹, in no iteration; φ is that of its model."""
    case, preconditioner = build(case), PRECONDITIONERS[preconditioner]
    solved = system_of(case, partition)
    inverse = dense_inverse(preconditioner, solved)

    solution = solve(Direction(preconditioner, model), solved)

    rhs = solved.blocks.scatter(solved.rhs)
    assert_close(solved.blocks.scatter(solution.x), inverse @ rhs)
    positions = solved.blocks.positions()
    matrix = cut(dense_ggn(case), positions) + damping_of(solved).diag()
    for b, block in enumerate(positions):
        d, m, r = (inverse @ rhs)[block], matrix[block[:, None], block], rhs[block]
        exact = 0.5 * d @ m @ d - r @ d
        assert_close(solution.model[b], exact if model == "matrix" else -0.5 * r @ d)
    rows = len(positions)
    assert solution.iterations == (0,) * rows
    assert solution.products == (1 if model == "matrix" else 0,) * rows
    assert solution.stop == (Stop.CONVERGED,) * rows
    assert solution.iterates[-1].x is solution.x
    assert len(solution.iterates) == 1


def test_ekfac_alone_solves_the_layers_of_a_deep_linear_network():
    """With exact columns and squared error the step is -(G_bb + λ_b I)⁻¹ g, that of Cholesky."""
    case = deep_linear()
    solved = system_of(case)

    solution = solve(Direction(EKFAC("exact")), solved)

    expected = solve(bdhf.Cholesky(), solved)
    assert_close(solution.x, expected.x)
    assert_close(solution.model, expected.model)


def test_kfac_alone_is_the_factored_formula():
    """(S + √λ/π I)⁻¹ R (A + π√λ I)⁻¹ (§6.3), and (S A + λ I)⁻¹ in the last layer, where S = c I."""
    case = deep_linear()
    solved = system_of(case)

    solution = solve(Direction(KFAC("exact")), solved)

    rhs = solved.blocks.scatter(solved.rhs)
    inputs, (x, _) = [], case.batch
    for layer in case.model:
        inputs.append(torch.cat([x, torch.ones(len(x), 1).double()], 1))
        x = layer(x).detach()
    total = dense_ggn(case)
    for b, (block, a) in enumerate(zip(solved.blocks.positions(), inputs, strict=True)):
        weight, features = case.model[b].weight, case.model[b].out_features
        bias = block[weight.numel() :]  # a is 1: the factor S itself
        A, S, lam = a.T @ a / len(a), total[bias[:, None], bias], solved.damping[b]
        pi = ((A.trace() / len(A)) / (S.trace() / len(S))).sqrt()
        A, S = A + pi * lam.sqrt() * torch.eye(len(A)), S + lam.sqrt() / pi * torch.eye(features)
        R = torch.cat([rhs[block[: weight.numel()]].view_as(weight), rhs[bias][:, None]], 1)
        expected = torch.linalg.solve(S, R) @ torch.linalg.inv(A)
        if b == len(inputs) - 1:
            c, undamped = total[bias[0], bias[0]], a.T @ a / len(a)
            expected = R @ torch.linalg.inv(c * undamped + lam * torch.eye(len(A)))
        d = solved.blocks.scatter(solution.x)[block]
        assert_close(d[: weight.numel()].view_as(weight), expected[:, :-1])
        assert_close(d[weight.numel() :], expected[:, -1])


def test_without_a_preconditioner_it_is_gradient_descent():
    """The step is -lr · g, whatever λ is."""
    case = build("classifier")
    solver = Direction(NoPreconditioner())
    optimizer = optimizer_of(case, solver=solver, damping=bdhf.Constant(7.0), lr=0.3)
    before, gradient = flat_parameters(case), dense_gradient(case)

    info = optimizer.step(case.batch)

    assert_close(flat_parameters(case), before - 0.3 * gradient)
    assert info.products == 1.0


@pytest.mark.parametrize("model", ["matrix", "preconditioner"])
def test_the_reduction_ratio_is_of_the_model_that_was_chosen(model):
    """ρ divides by gᵀs + ½ sᵀGs of the blocks, or by gᵀs + ½ sᵀ(M - λI)s."""
    case = build("mlp")
    solver = Direction(EKFAC("exact"), model)
    optimizer = optimizer_of(case, solver=solver, damping=bdhf.Constant(0.1), lr=0.7)
    solved = system_of(case)
    solved = replace(solved, damping=torch.full_like(solved.damping, 0.1))
    M = torch.linalg.inv(dense_inverse(EKFAC("exact"), solved)) - 0.1 * torch.eye(len(solved.rhs))
    G = cut(dense_ggn(case), solved.blocks.positions()) if model == "matrix" else M
    before, gradient = flat_parameters(case), dense_gradient(case)

    info = optimizer.step(case.batch)

    s = flat_parameters(case) - before
    change = case.loss_fn(case.model(case.batch[0]), case.batch[1]).item() - info.loss
    predicted = gradient @ s + 0.5 * s @ G @ s
    assert info.reduction_ratio == pytest.approx(change / float(predicted))
    assert info.products == (1.0 if model == "matrix" else 0.0)


def test_levenberg_marquardt_lowers_the_damping_of_good_steps():
    """ρ of an exact model on a quadratic problem is 1, so λ shrinks, and the loss falls."""
    case = deep_linear()
    damping = bdhf.LevenbergMarquardt(initial=1.0)
    optimizer = optimizer_of(case, solver=Direction(EKFAC("exact")), damping=damping, lr=0.3)

    losses = [optimizer.step(case.batch).loss for _ in range(12)]

    assert losses[-1] < 0.5 * losses[0]
    assert optimizer.param_groups[0]["damping"] < 1.0


def test_a_step_starts_nowhere():
    """The step after another is that of a fresh optimizer at the same point."""
    case, solver = build("mlp"), Direction(EKFAC("exact"))
    optimizer = optimizer_of(case, solver=solver)
    optimizer.step(case.batch)
    at = [p.detach().clone() for p in case.model.parameters()]
    second = optimizer.step(case.batch)
    with torch.no_grad():
        for parameter, value in zip(case.model.parameters(), at, strict=True):
            parameter.copy_(value)

    assert second == optimizer_of(case, solver=solver).step(case.batch)


@dataclass(frozen=True)
class Given:
    """A preconditioner with an inverse that it was given."""

    inverse: Inverse

    def __call__(self, solved):
        return self.inverse


def two_with(value):
    """2 in every entry, and `value` in one of the second block."""
    return torch.full((10,), 2.0).double().index_fill(0, torch.tensor([4]), value)


@pytest.mark.parametrize("model", ["matrix", "preconditioner"])
@pytest.mark.parametrize(
    "preconditioner",
    [
        Diagonal(two_with(math.nan)),
        Diagonal(two_with(0.0)),
        Given(lambda r: r / two_with(math.nan)),
    ],
    ids=["NaN", "zero", "operator"],
)
def test_a_preconditioner_that_is_not_finite_moves_nothing(preconditioner, model):
    """A NaN, or a division by 0, in one block: it stays at 0; the others step."""
    matrices = [positive(n, n, condition=2.0) for n in (3, 3, 4)]
    solved = system(matrices, [torch.ones(len(m)).double() for m in matrices], damping=0.5)

    solution = solve(Direction(preconditioner, model), solved)

    assert solution.stop == (Stop.CONVERGED, Stop.NONFINITE, Stop.CONVERGED)
    assert torch.equal(solution.x, torch.tensor([0.5] * 3 + [0.0] * 3 + [0.5] * 4).double())
    assert solution.model[1] == 0
    assert solution.model[0] < 0
    moved = int(model == "matrix")
    assert solution.products == (moved, 0, moved)


def test_a_product_that_is_not_finite_moves_nothing():
    """NaN in the matrix of one block stays in it: its direction has no φ."""
    matrices = [positive(3, 1), torch.full((3, 3), math.nan).double()]
    solved = system(matrices, [torch.ones(3).double()] * 2)

    solution = solve(Direction(NoPreconditioner()), solved)

    assert solution.stop == (Stop.CONVERGED, Stop.NONFINITE)
    assert solution.x.tolist() == [1.0] * 3 + [0.0] * 3
    assert solution.model[1] == 0
    assert solution.products == (1, 1)


def test_the_right_hand_side_stays_as_it_is():
    """Nothing is written into the gradient, also where M is the identity."""
    solved = system_of(wide())
    before = solved.rhs.clone()

    solution = solve(Direction(NoPreconditioner()), solved)

    assert torch.equal(solved.rhs, before)
    assert solution.x.data_ptr() != solved.rhs.data_ptr()


@pytest.mark.parametrize("curvature", [bdhf.Hessian(), bdhf.Fisher(), bdhf.EmpiricalFisher()])
def test_every_curvature_is_accepted_and_the_step_is_downhill(curvature):
    """M is positive definite, whatever the products are of."""
    case = build("classifier")
    optimizer = optimizer_of(case, curvature=curvature, solver=Direction(), lr=1.0)
    gradient, before = dense_gradient(case), flat_parameters(case)

    info = optimizer.step(case.batch)

    assert gradient @ (flat_parameters(case) - before) < 0
    assert set(info.stop) == {Stop.CONVERGED}


@pytest.mark.parametrize("model", ["matrix", "preconditioner"])
def test_the_cost_is_known_in_advance(model):
    """The estimate counts the product for φ, and what a preconditioner needs."""
    case = build("mlp")
    sizes = {"gradient_batch": 700}
    plain, kfac = (
        estimate(optimizer_of(case, solver=Direction(each, model)), case.batch, **sizes)
        for each in (NoPreconditioner(), KFAC())
    )

    assert 1 < plain < kfac
    assert (plain > 2) == (model == "matrix")


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        ("direction", Direction(KFAC())),
        ({"type": "direction", "preconditioner": "ekfac"}, Direction(EKFAC())),
        (
            {"type": "direction", "preconditioner": {"type": "kfac", "samples": 2}},
            Direction(KFAC(2)),
        ),
        (
            {"type": "cg", "preconditioner": {"type": "ekfac", "samples": "exact"}},
            bdhf.CG(preconditioner=EKFAC("exact")),
        ),
        ({"type": "direction", "model": "preconditioner"}, Direction(model="preconditioner")),
    ],
)
def test_a_spec_gives_it_by_name(solver, expected):
    """The keys of a spec are the arguments of the part."""
    problem = tables.problem_of(resolve_problem("mlp"))

    resolved = resolve_arm("arm", {"type": "block_hf", "solver": solver}, problem)

    assert tables.part_of("solver", resolved) == expected


def test_another_model_is_an_error():
    """The class, the argument and what is allowed are named."""
    with pytest.raises(
        ValueError, match=naming("Direction", "model", "matrix", "preconditioner", "none")
    ):
        Direction(model="none")

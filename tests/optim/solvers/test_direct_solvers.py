"""Direct solvers: the solution of converged CG, at a cost that is counted, or a refusal."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.experiments.parts.compatibility import triples
from bdhf.optim import Stop
from bdhf.optim.solvers import System
from bdhf.optim.vectors.layout import layout_of
from tests.cases import Case, build
from tests.messages import naming
from tests.optim.case_systems import phi, solve, system_of
from tests.optim.curvatures import CURVATURES, DEFINED, INDEFINITE, NAMED_INSTEAD, UNDEFINED
from tests.optim.optimizers import EXACT, dense_step, optimizer_of, regression
from tests.optim.partitions import PARTITIONS
from tests.oracles import dense_ggn, flat_parameters

DIRECT = {"sample_space": bdhf.SampleSpace(chunk=5), "cholesky": bdhf.Cholesky()}
direct = pytest.mark.parametrize("solver", DIRECT.values(), ids=DIRECT)

#: Solvers by curvature and partition, where the combination is allowed.
ALLOWED: dict[tuple[str, str], list[str]] = {}
for _curvature, _partition, _solver, _reason in triples():
    if _solver in DIRECT and not _reason:
        ALLOWED.setdefault((_curvature, _partition), []).append(_solver)


def definite(case, curvature):
    """A damping under which the matrix of a case is well conditioned, and so are its blocks."""
    smallest = float(torch.linalg.eigvalsh(CURVATURES[curvature][1](case)).min())
    return 0.05 + max(0.0, -smallest)


def test_the_table_allows_direct_solvers_wherever_there_is_a_factor():
    """Cholesky accepts every curvature, SampleSpace every one without a share of the Hessian."""
    for (curvature, _), solvers in ALLOWED.items():
        expected = {"cholesky"} if curvature in INDEFINITE else {"cholesky", "sample_space"}
        assert set(solvers) == expected
    assert len(ALLOWED) == 30


#: Everything that is allowed on four cases, and the harder models under the harder partitions.
COMBINATIONS = [
    *(
        (case, curvature, partition)
        for case in ("classifier", "tied", "sum_bce", "tokens")
        for curvature, partition in ALLOWED
        if (case, curvature) in DEFINED
    ),
    *(
        (case, curvature, partition)
        for case in ("conv", "lstm", "peephole", "unused")
        for curvature in ("ggn", "hessian")
        for partition in ("per_layer", "per_neuron", "blend")
    ),
]


@pytest.mark.parametrize(("case", "curvature", "partition"), COMBINATIONS)
def test_the_solution_is_that_of_converged_cg(case, curvature, partition):
    """Every block's (G_bb + λ_b I) x = -g is solved to 1e-8, and φ is that of the solution."""
    case = build(case)
    system = system_of(case, curvature, partition, definite(case, curvature))
    expected = solve(EXACT, system)

    for name in ALLOWED[curvature, partition]:
        solution = solve(DIRECT[name], system)

        assert_close(solution.x, expected.x, rtol=0, atol=1e-8)
        assert_close(solution.model, phi(system, solution.x))
        assert_close(solution.model, expected.model)
        assert set(solution.stop) == {Stop.CONVERGED}
        assert set(solution.iterations) == {0}
        assert len(solution.iterates) == 1
        assert torch.equal(solution.iterates[0].x, solution.x)
        assert torch.equal(solution.iterates[0].model, solution.model)


@direct
@pytest.mark.parametrize(("case", "curvature"), UNDEFINED)
@pytest.mark.parametrize("partition", ["full", "per_layer"])
def test_a_curvature_that_a_loss_does_not_have_has_no_solution(case, curvature, partition, solver):
    """A step is refused, and the model stays where it was."""
    case = build(case)
    before = flat_parameters(case)
    optimizer = optimizer_of(
        case, curvature=CURVATURES[curvature][0], partition=partition, solver=solver
    )

    with pytest.raises(ValueError, match=NAMED_INSTEAD):
        optimizer.step(case.batch)
    assert torch.equal(flat_parameters(case), before)


@direct
@pytest.mark.parametrize("case", ["mlp", "classifier", "sum_bce", "ignoring"])
@pytest.mark.parametrize("sizes", [[1, 3], [3, 1]])
def test_steps_of_micro_batches_are_those_of_the_whole_batch(solver, case, sizes):
    """Unequal micro-batches are one batch, for the optimizer with a direct solver too."""
    whole, pieces = build(case), build(case)
    x, y = (part[:4] for part in whole.batch)
    whole = replace(whole, batch=(x, y))
    optimizer = optimizer_of(pieces, solver=solver, damping=bdhf.Constant(0.05), lr=1.0)
    expected = flat_parameters(whole) + dense_step(whole, optimizer, 0.05)

    optimizer.step(list(zip(x.split(sizes), y.split(sizes), strict=True)))

    assert_close(flat_parameters(pieces), expected, rtol=0, atol=1e-8)


@direct
@pytest.mark.parametrize("partition", ["per_layer", "per_neuron", "pairs", "blend"])
def test_groups_have_their_own_damping(solver, partition):
    """The λ of a param_group is that of its blocks: the step is that of converged CG."""
    steps = []
    for each in (solver, EXACT):
        case = build("mlp")
        optimizer = optimizer_of(case, partition, solver=each, lr=1.0)
        for index, group in enumerate(optimizer.param_groups):
            group["damping"] = 0.05 + 0.4 * index
        optimizer.step(case.batch)
        steps.append(flat_parameters(case))

    assert_close(steps[0], steps[1], rtol=0, atol=1e-8)


@direct
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_blends_are_solved_at_every_alpha(solver, alpha):
    """α 0 is the solution of the blocks, α 1 that of the full matrix, and between, the blend's."""
    case = build("classifier")
    partition = bdhf.Blend(bdhf.PerNeuron(), alpha)
    optimizer = bdhf.BlockHessianFree(
        case.model,
        case.loss_fn,
        partition=partition,
        solver=solver,
        damping=bdhf.Constant(0.05),
        lr=1.0,
    )
    expected = flat_parameters(case) + dense_step(case, optimizer, 0.05)

    optimizer.step(case.batch)

    assert_close(flat_parameters(case), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_cholesky_takes_as_many_products_with_a_block_as_it_has_parameters(partition):
    """A block of n takes n products, and no other: what is counted is what is done."""
    system = system_of(build("mlp"), partition=partition)
    sizes = [block.size for block in system.blocks.rows]

    solution = solve(bdhf.Cholesky(), system)

    assert system.matrix.counts == sizes
    assert solution.products == tuple(sizes)


@pytest.mark.parametrize("partition", ["full", "per_neuron", "blend"])
def test_sample_space_takes_half_a_product_for_every_row_of_its_factor(partition):
    """R = N · C rows, one Jᵀw each; a blend has as many again for every block within it."""
    case = build("mlp")
    system = system_of(case, partition=partition)
    blend = system.blocks.blend

    solution = solve(bdhf.SampleSpace(), system)

    rows = case.batch[1].numel() * (1 if blend is None else 1 + len(blend.inner.rows))
    assert solution.products == (0.5 * rows,) * len(system.blocks.rows)
    assert set(system.matrix.counts) == {0}


def test_the_optimizer_reports_products_of_the_full_matrix():
    """Σ_b n_b P_b / P for Cholesky, R/2 for SampleSpace."""
    reported = {}
    for name, solver in DIRECT.items():
        case = build("mlp")
        optimizer = optimizer_of(case, solver=solver)
        reported[name] = optimizer.step(case.batch).products

    sizes = [block.size for block in optimizer.blocks.rows]
    assert reported["cholesky"] == pytest.approx(sum(n * n for n in sizes) / sum(sizes))
    assert reported["sample_space"] == pytest.approx(0.5 * case.batch[1].numel())


@direct
def test_a_direct_solve_starts_nowhere(solver):
    """The step after another is that of a fresh optimizer at the same point."""
    model, batch = regression(n=20)
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, solver=solver)
    optimizer.step(batch)
    before = [p.detach().clone() for p in model.parameters()]
    warm = optimizer.step(batch)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), before, strict=True):
            parameter.copy_(value)

    fresh = bdhf.BlockHessianFree(model, F.mse_loss, solver=solver).step(batch)

    assert warm == fresh


@pytest.mark.parametrize("curvature", INDEFINITE)
def test_an_indefinite_matrix_has_no_sample_space(curvature):
    """It has no factor: refused where the optimizer is built."""
    kind = CURVATURES[curvature][0]
    facts = naming("SampleSpace", repr(kind), "CG", "Cholesky", "GGN")
    with pytest.raises(ValueError, match=facts):
        bdhf.BlockHessianFree(
            nn.Linear(2, 1), F.mse_loss, curvature=kind, solver=bdhf.SampleSpace()
        )


def undamped(case, weight):
    """A solver in sample space, λ = 0 in one group, and a penalty on the parameters."""
    optimizer = optimizer_of(case, solver=bdhf.SampleSpace(), regularization=bdhf.L2(weight))
    optimizer.param_groups[1]["damping"] = 0.0
    return optimizer


def test_sample_space_needs_damping_in_every_block():
    """λ = 0 in one group is refused."""
    case = build("mlp")

    with pytest.raises(ValueError, match=naming("SampleSpace", "damping", 0)):
        undamped(case, weight=0.0).step(case.batch)


def test_a_penalty_on_the_parameters_stands_in_for_damping():
    """Its weight is added to the diagonal of every block."""
    case = build("mlp")

    assert set(undamped(case, weight=0.1).step(case.batch).stop) == {Stop.CONVERGED}


def test_too_many_rows_are_refused_with_ways_out():
    """7 samples of 3 outputs are 21 rows."""
    case = build("mlp")
    optimizer = optimizer_of(case, solver=bdhf.SampleSpace(max_rows=20))

    with pytest.raises(ValueError, match=naming(21, "max_rows", 20, "CG", "Fisher(samples=1)")):
        optimizer.step(case.batch)

    small = tuple(part[:6] for part in case.batch)
    assert set(optimizer.step(case.batch, small).stop) == {Stop.CONVERGED}


def test_a_block_above_the_bound_is_refused_with_ways_out():
    """The largest layer of the model has 25 parameters: refused where the optimizer is built."""
    case = build("mlp")

    with pytest.raises(ValueError, match=naming(25, "max_block", 24, "CG", "per_neuron")):
        optimizer_of(case, solver=bdhf.Cholesky(max_block=24))
    assert optimizer_of(case, solver=bdhf.Cholesky(max_block=25)).step(case.batch).loss > 0


@pytest.mark.parametrize(
    ("build_solver", "message"),
    [
        (lambda: bdhf.Cholesky(max_block=0), "Cholesky max_block must be at least 1"),
        (lambda: bdhf.SampleSpace(max_rows=0), "SampleSpace max_rows must be at least 1"),
        (lambda: bdhf.SampleSpace(chunk=0), "SampleSpace chunk must be at least 1"),
    ],
)
def test_settings_out_of_range_are_errors(build_solver, message):
    """A bound that nothing can meet is refused where it is given, by name."""
    with pytest.raises(ValueError, match=message):
        build_solver()


@dataclass(frozen=True)
class Dense:
    """A block-diagonal matrix (P, P) in the place of products."""

    dense: torch.Tensor

    def __call__(self, v, active=None):
        return self.dense @ v


def dense_system(values, rhs, damping=0.0):
    """Two blocks of 3 with a diagonal of 6 values."""
    layout = layout_of(nn.Linear(6, 1, bias=False))
    blocks = bdhf.optim.vectors.blocks.Blocks.of(layout, [torch.arange(6).view(2, 3)])
    values, rhs = (torch.tensor(v, dtype=torch.float64) for v in (values, rhs))
    lam = torch.full((2,), damping, dtype=torch.float64)
    return System(blocks, Dense(values.diag()), rhs, lam)


def test_a_block_that_is_not_positive_definite_steps_as_cg_does_at_first():
    """Where rhsᵀA rhs ≤ 0 the step is CG's at a first iteration; the other block is solved."""
    system = dense_system([1, -1, -2, 1, 2, 3], [1, 1, 1, 1, 1, 1], damping=0.25)

    solution = solve(bdhf.Cholesky(), system)

    cg = solve(bdhf.CG(residual_tol=1e-13), system)
    assert solution.stop == (Stop.NEGATIVE_CURVATURE, Stop.CONVERGED)
    assert cg.stop[0] is Stop.NEGATIVE_CURVATURE
    assert_close(solution.x, cg.x)
    assert_close(solution.model, cg.model)


@pytest.mark.parametrize("rhs", [[3, 1, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]])
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_a_step_of_an_indefinite_block_is_along_its_right_hand_side_and_downhill(rhs, damping):
    """Whatever the sign of rhsᵀA rhs, φ of the step is not above 0, and is its definition."""
    system = dense_system([2, 1, -1, 1, 1, 1], [*rhs, 0, 0, 0], damping)

    solution = solve(bdhf.Cholesky(), system)

    x, b = solution.x[:3], system.rhs[:3]
    damped = system.matrix.dense[:3, :3] + damping * torch.eye(3, dtype=torch.float64)
    assert solution.stop[0] is Stop.NEGATIVE_CURVATURE
    assert_close(x * b.norm(), b * x.norm())
    assert_close(solution.model[0], 0.5 * x @ damped @ x - b @ x)
    assert solution.model[0] <= 0
    assert (solution.model[0] < 0) == bool(b.any())


@direct
def test_a_right_hand_side_that_is_not_finite_moves_nothing(solver):
    """NaN in one block: it stays at 0 with φ 0 and stop "nonfinite"; the others are solved."""
    case = build("mlp")
    system = system_of(case)
    clean = solve(solver, system)
    rhs = system.rhs.clone()
    rhs[30] = math.nan  # in the second block

    solution = solve(solver, replace(system, rhs=rhs))

    assert solution.stop == (Stop.CONVERGED, Stop.NONFINITE, Stop.CONVERGED)
    for b, row in enumerate(system.blocks.rows):
        part = slice(row.start, row.stop)
        assert torch.equal(solution.x[part], 0 * clean.x[part] if b == 1 else clean.x[part])
    assert torch.equal(solution.model, torch.where(torch.arange(3) == 1, 0, clean.model))
    assert torch.equal(solution.iterates[-1].x, solution.x)
    assert torch.equal(solution.iterates[-1].model, solution.model)


def test_cholesky_rests_in_a_block_whose_matrix_is_not_finite():
    """NaN in the matrix of one block stays in it."""
    system = dense_system([1, math.nan, 2, 1, 2, 4], [1, 1, 1, 1, 1, 1])

    solution = solve(bdhf.Cholesky(), system)

    assert solution.stop == (Stop.NONFINITE, Stop.CONVERGED)
    assert solution.x[:3].tolist() == [0, 0, 0]
    assert solution.x[3:].tolist() == pytest.approx([1, 0.5, 0.25])


@direct
@pytest.mark.parametrize("case", ["mlp", "classifier", "conv"])
def test_single_precision_is_double_precision_within_its_tolerance(solver, case):
    """The same step comes out in float32."""
    single, double = build(case, dtype=torch.float32), build(case)
    before = flat_parameters(single)
    optimizer = optimizer_of(single, solver=solver, damping=bdhf.Constant(0.05), lr=1.0)
    expected = dense_step(double, optimizer, 0.05)

    optimizer.step(single.batch)

    assert_close((flat_parameters(single) - before).double(), expected, rtol=1e-3, atol=1e-4)


def test_rounding_that_eats_the_damping_is_no_solution():
    """In float32 λ = 1e-12 and a factor of rank 1 give stop "nonfinite", and no step."""
    model = nn.Linear(3, 1, bias=False)
    optimizer = bdhf.BlockHessianFree(
        model, F.mse_loss, solver=bdhf.SampleSpace(), damping=bdhf.Constant(1e-12)
    )
    before = model.weight.detach().clone()

    info = optimizer.step((torch.ones(5, 3), torch.ones(5, 1)))

    assert info.stop == (Stop.NONFINITE,)
    assert torch.equal(model.weight, before)


def test_both_gram_matrices_give_the_solution():
    """Few rows and many parameters, or the other way round: A Aᵀ or AᵀA is factored."""
    few, many = build("mlp"), regression(n=100)
    for case in (few, Case(many[0].double(), F.mse_loss, tuple(t.double() for t in many[1]))):
        system = system_of(case, partition="full")
        wide = system.matrix.factor_rows < len(system.rhs)
        assert wide == (case is few)
        matrix = dense_ggn(case) + 0.05 * torch.eye(len(system.rhs), dtype=torch.float64)

        solution = solve(bdhf.SampleSpace(), system)

        assert_close(solution.x, torch.linalg.solve(matrix, system.rhs), rtol=0, atol=1e-8)

"""EKFAC: its matrix by the definition, from the gradients of samples one by one."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import EKFAC, KFAC, CurvatureError, Stop
from bdhf.optim.products import per_sample
from bdhf.optim.solvers.preconditioners.eigenbasis import eigenbasis
from bdhf.optim.solvers.preconditioners.moments import DenseMoment, DiagonalMoment, FewVectors
from tests.cases import CASES, Case, build
from tests.messages import naming
from tests.optim import preconditioned
from tests.optim.optimizers import EXACT, optimizer_of
from tests.optim.preconditioned import (
    damping_of,
    deep_linear,
    dense_inverse,
    parameters_of,
    sample_gradients,
    system_of,
)
from tests.oracles import cut, dense_ggn, dense_gradient, flat_parameters, size

MADE = {name: getattr(preconditioned, name) for name in ("deep_linear", "wide", "few_patches")}
#: Every case in layers, and kinds of sites under the other partitions.
COMBINATIONS = [
    *((case, "per_layer") for case in [*CASES, *MADE]),
    *(
        (case, partition)
        for case in ("conv", "embedding", "norms", "wide")
        for partition in ("full", "per_neuron", "neighbours", "thirds")
    ),
]
SEED = 11


def case_of(name):
    """A case of the table, or one of this file."""
    return MADE[name]() if name in MADE else build(name)


def dense_basis(factors):
    """Q of one part, (features · entries, groups · r of S · r of A)."""
    groups, r, m = factors.squares.shape
    s = factors.s.columns if factors.s.columns is not None else torch.eye(r).double()
    a = factors.a.columns if factors.a.columns is not None else torch.eye(m).double()
    s, a = (q.expand(groups, *q.shape[-2:]).contiguous() for q in (s, a))
    return torch.block_diag(*[torch.kron(*pair) for pair in zip(s, a, strict=True)])


def made(ekfac, system):
    """The bases and squares of a system, and the diagonal of its rest."""
    samples = system.matrix.site_samples()
    with torch.no_grad():
        return samples, *ekfac.factors(samples, SEED)


def drawn(ekfac, record, seed=SEED):
    """The columns of the root of H that EKFAC uses, (k, *shape of z)."""
    return torch.cat(list(KFAC(ekfac.samples).columns(record, seed)))


def by_definition(case, ekfac, system):
    """Q diag(Σ (Qᵀ g)²) Qᵀ + λ on every part, with g sample by sample; (P, P)."""
    samples, parts, rest = made(ekfac, system)
    gradients = sample_gradients(case, drawn(ekfac, samples.records[0]))
    matrix = torch.zeros(size(case), size(case), dtype=torch.float64)
    for factors in parts:
        positions, q = parameters_of(factors.part), dense_basis(factors)
        squares = (gradients[:, positions] @ q).square().sum(0)
        matrix[positions[:, None], positions] = q @ squares.diag() @ q.T
    matrix[samples.rest, samples.rest] = rest
    return matrix + damping_of(system).diag()


@pytest.mark.parametrize(("case", "partition"), COMBINATIONS)
def test_matrix_is_its_definition(case, partition):
    """M is Q (D + λ) Qᵀ with D = Σ (Qᵀ g)² of the samples' gradients; it is positive definite."""
    case = case_of(case)
    ekfac = EKFAC(samples=2, uncovered="diagonal")
    system = replace(system_of(case, partition), matrix=Seeded(system_of(case, partition).matrix))

    inverse = dense_inverse(ekfac, system)

    expected = by_definition(case, ekfac, system)
    assert_close(inverse @ expected, torch.eye(len(inverse)).double(), rtol=0, atol=1e-9)
    assert_close(inverse, inverse.T)
    assert torch.linalg.eigvalsh(inverse).min() > 0
    assert torch.equal(inverse, cut(inverse, system.blocks.positions()))


class Seeded:
    """A matrix whose preconditioner draws from the seed of this file."""

    seed = SEED

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, v, active=None):
        return self.matrix(v, active)

    def __getattr__(self, name):
        return getattr(self.matrix, name)


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("case", ["conv", "embedding", "tokens", "lstm", "wide", "few_patches"])
@pytest.mark.parametrize("samples", [1, "exact"])
def test_the_basis_misses_no_part_of_a_gradient(case, sharing, samples):
    """The sum of D is that of the squared gradients, whichever vectors the factors are made of."""
    case = case_of(case)
    ekfac = EKFAC(samples, sharing, uncovered="diagonal")
    recorded, parts, _ = made(ekfac, system_of(case))
    gradients = sample_gradients(case, drawn(ekfac, recorded.records[0]))

    sums = [gradients[:, parameters_of(each.part)].square().sum() for each in parts]

    assert_close([each.squares.sum() for each in parts], sums)


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("case", ["conv", "embedding", "tokens", "lstm", "wide", "few_patches"])
@pytest.mark.parametrize("samples", [1, "exact"])
def test_sharing_concerns_the_basis_alone(case, sharing, samples):
    """D is that of gradients summed over positions, in the basis of either kind of factors."""
    case = case_of(case)
    ekfac = EKFAC(samples, sharing, uncovered="diagonal")
    system = replace(system_of(case), matrix=Seeded(system_of(case).matrix))

    inverse = dense_inverse(ekfac, system)

    expected = by_definition(case, ekfac, system)
    assert_close(inverse @ expected, torch.eye(len(inverse)).double(), rtol=0, atol=1e-9)


def errors_of(case, partition):
    """‖G - M‖ of EKFAC and of K-FAC on every part, undamped, with exact columns; and ‖G‖."""
    system = system_of(case, partition)
    samples, parts, _ = made(EKFAC("exact"), system)
    kronecker, _ = KFAC("exact").factors(samples, SEED)
    exact = cut(dense_ggn(case), system.blocks.positions())
    errors = []
    for eigen, factors in zip(parts, kronecker, strict=True):
        positions, q = parameters_of(eigen.part), dense_basis(eigen)
        block = exact[positions[:, None], positions]
        a = factors.a.dense().expand(len(factors.s.mean), -1, -1)
        pairs = zip(factors.s.dense(), a.contiguous(), strict=True)
        product = torch.block_diag(*[torch.kron(s, a) for s, a in pairs])
        approximation = q @ eigen.squares.reshape(-1).diag() @ q.T
        errors.append(((block - approximation).norm(), (block - product).norm(), block.norm()))

    return errors


@pytest.mark.parametrize(
    ("case", "partition"), [pair for pair in COMBINATIONS if pair[0] != "own_loss"]
)
def test_it_is_no_farther_from_the_curvature_than_kfac(case, partition):
    """In the Frobenius norm, with exact columns and without damping (George et al. 2018)."""
    errors = errors_of(case_of(case), partition)

    assert errors
    assert all(own <= other + 1e-12 * norm for own, other, norm in errors)


@pytest.mark.parametrize("case", ["mlp", "classifier", "conv", "embedding"])
def test_it_is_nearer_where_inputs_and_cotangents_depend_on_each_other(case):
    """The error is smaller by a tenth in a layer of a network with activations."""
    errors = errors_of(build(case), "per_layer")

    assert any(own < 0.9 * other for own, other, _ in errors)


def test_a_layer_of_a_deep_linear_network_is_exact():
    """With squared error and exact columns M is G + λI in every layer, and one iteration solves."""
    case = deep_linear()
    system = system_of(case)

    inverse = dense_inverse(EKFAC("exact"), system)

    damped = cut(dense_ggn(case), system.blocks.positions()) + damping_of(system).diag()
    assert_close(torch.linalg.inv(inverse), damped)
    solver = bdhf.CG(tol=0, residual_tol=1e-9, preconditioner=EKFAC("exact"))
    with torch.no_grad():
        solution = solver.solve(system)
    assert solution.iterations == (1, 1, 1)
    assert set(solution.stop) == {Stop.CONVERGED}
    expected = torch.linalg.solve(damped, -dense_gradient(case))
    assert_close(system.blocks.scatter(solution.x), expected)


@pytest.mark.parametrize("samples", [1, 3])
def test_the_diagonal_is_that_of_the_monte_carlo_matrix(samples):
    """On one linear layer, Qᵀ M Q - λ is the diagonal of Qᵀ (Σ g gᵀ) Q over draws and samples."""
    draws = torch.Generator().manual_seed(2)
    x = torch.randn(8, 4, generator=draws, dtype=torch.float64)
    y = torch.randint(0, 3, (8,), generator=draws)
    case = Case(nn.Linear(4, 3).double(), F.cross_entropy, (x, y))
    ekfac = EKFAC(samples)
    system = replace(system_of(case), matrix=Seeded(system_of(case).matrix))
    record, (factors,) = system.matrix.site_samples().records[0], made(ekfac, system)[1]
    signed = record.draws(samples, torch.Generator().manual_seed(0))
    assert drawn(ekfac, record).shape == signed.shape
    gradients = sample_gradients(case, drawn(ekfac, record))
    q = dense_basis(factors)
    order = parameters_of(factors.part)

    inverse = dense_inverse(ekfac, system)[order[:, None], order]

    diagonal = (q.T @ (gradients.T @ gradients)[order[:, None], order] @ q).diagonal()
    expected = (diagonal + system.damping).diag()
    assert_close(q.T @ torch.linalg.inv(inverse) @ q, expected)


@pytest.mark.parametrize("case", ["conv", "sum_bce", "gru", "wide"])
@pytest.mark.parametrize("partition", ["full", "neighbours", "blend"])
def test_the_converged_solution_does_not_depend_on_it(case, partition):
    """Conjugate gradients solve (G + λI) d = -g with it as without, to 1e-8."""
    case = case_of(case)
    system = system_of(case, partition)
    with torch.no_grad():
        expected = EXACT.solve(system)

        solution = replace(EXACT, preconditioner=EKFAC(uncovered="diagonal")).solve(system)

    assert set(solution.stop) == {Stop.CONVERGED}
    assert_close(solution.x, expected.x, rtol=0, atol=1e-8)


@pytest.mark.parametrize("case", ["mlp", "conv", "sum_bce", "embedding"])
@pytest.mark.parametrize("sizes", [[1, 3], [2, 2], [3, 1]])
def test_micro_batches_make_the_matrix_of_the_whole_batch(case, sizes):
    """Unequal micro-batches add up to the same M."""
    case = build(case)
    x, y = (part[:4] for part in case.batch)
    pieces = list(zip(x.split(sizes), y.split(sizes), strict=True))
    whole, parts = (system_of(case, batch=batch) for batch in ((x, y), pieces))

    inverse = dense_inverse(EKFAC("exact"), parts)

    eigen = EKFAC("exact").factors(whole.matrix.site_samples(), 0)[0]
    split = EKFAC("exact").factors(parts.matrix.site_samples(), 0)[0]
    for left, right in zip(eigen, split, strict=True):
        assert_close(left.squares.flatten().sort().values, right.squares.flatten().sort().values)
    assert_close(inverse, dense_inverse(EKFAC("exact"), whole))


def test_every_micro_batch_has_its_own_draws():
    """The seed of the i-th is the seed of the update plus i, in the factors as in D."""
    case = build("mlp")
    x, y = case.batch
    ekfac = EKFAC(samples=2)
    system = system_of(case, batch=[(x[:3], y[:3]), (x[3:], y[3:])])
    recorded, parts, _ = made(ekfac, system)
    first, second = recorded.records
    rows = [
        sample_gradients(replace(case, batch=(x[:3], y[:3])), drawn(ekfac, first)),
        sample_gradients(replace(case, batch=(x[3:], y[3:])), drawn(ekfac, second, SEED + 1)),
    ]

    for factors in parts:
        coordinates = torch.cat(rows)[:, parameters_of(factors.part)] @ dense_basis(factors)
        assert_close(factors.squares.flatten(), coordinates.square().sum(0))


def test_no_eigenvector_has_entries_of_two_blocks():
    """Also where the blocks share all eigenvalues, and the entries of a block lie apart."""
    matrix = torch.eye(6).double()
    matrix[0, 2] = matrix[2, 0] = matrix[1, 4] = matrix[4, 1] = 0.5
    labels = torch.tensor([[7, 3, 7, 3, 3, 7]])

    columns = eigenbasis(DenseMoment(matrix[None]), labels, spans=True).columns[0]

    apart = labels[0][:, None] != labels[0]
    assert apart.any()
    assert torch.equal(columns[apart], torch.zeros(int(apart.sum())).double())
    image = columns.T @ matrix @ columns
    assert_close(image, image.diagonal().diag())
    assert_close(columns.T @ columns, torch.eye(6).double())


@pytest.mark.parametrize("rank", ["thin", "deficient"])
def test_a_basis_of_few_vectors_spans_them(rank):
    """Its columns are orthonormal, diagonalise XᵀX, and miss no part of X."""
    x = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(1)).double()
    x[1, 2] = x[1, 1] if rank == "deficient" else x[1, 2]
    moment = FewVectors(x)

    thin, whole = (eigenbasis(moment, None, spans) for spans in (True, False))

    assert not thin.is_whole
    assert whole.is_whole
    assert_close(x @ thin.columns @ thin.columns.mT, x)
    for basis in (thin, whole):
        gram = basis.columns.mT @ basis.columns
        assert_close(gram, torch.eye(gram.shape[1]).double().expand_as(gram))
        image = basis.columns.mT @ moment.dense() @ basis.columns
        assert_close(image, torch.diag_embed(image.diagonal(dim1=1, dim2=2)))


def test_a_factor_that_is_not_finite_spoils_its_group_alone():
    """Its basis is NaN, so that a solve reports it; the others are as without it."""
    matrices = torch.stack([torch.eye(3), 2 * torch.eye(3), torch.eye(3)]).double()
    matrices[1, 0, 2] = torch.nan

    columns = eigenbasis(DenseMoment(matrices), None, spans=True).columns

    assert columns[1].isnan().all()
    assert_close(columns[[0, 2]], torch.eye(3).double().expand(2, 3, 3))
    assert eigenbasis(DiagonalMoment(matrices[:, 0]), None, spans=True).columns is None


def test_a_model_that_overflows_does_not_step():
    """Infinite inputs of a layer make M NaN: every block stops as not finite, and none raises."""
    case = build("mlp")
    system = system_of(case)
    samples = system.matrix.site_samples()
    lost = [replace(a, values=a.values * torch.inf) for a in samples.records[0].inputs]
    records = (replace(samples.records[0], inputs=tuple(lost)),)

    class Overflowing(Seeded):
        def site_samples(self):
            return replace(samples, records=records)

    solver = bdhf.CG(preconditioner=EKFAC())
    with torch.no_grad():
        solution = solver.solve(replace(system, matrix=Overflowing(system.matrix)))

    assert set(solution.stop) == {Stop.NONFINITE}
    assert not solution.x.any()


@pytest.mark.parametrize("entries", [1, 50])
def test_the_number_of_samples_at_a_time_does_not_change_the_squares(entries, monkeypatch):
    """Gradients of samples are held a few at a time."""
    system = system_of(build("conv"))
    _, expected, _ = made(EKFAC("exact"), system)
    monkeypatch.setattr(per_sample, "MAX_ENTRIES", entries)

    _, parts, _ = made(EKFAC("exact"), system)

    for left, right in zip(parts, expected, strict=True):
        assert_close(left.squares, right.squares)


@pytest.mark.parametrize("case", ["unused", "wide"])
@pytest.mark.parametrize("damping", [0.0, 1e-30])
@pytest.mark.parametrize("partition", ["full", "per_neuron"])
def test_without_damping_nothing_is_divided_by_zero(case, damping, partition):
    """A curvature of 0 beside λ ≈ 0 gives a finite, positive definite M⁻¹."""
    system = system_of(case_of(case), partition, damping)

    inverse = dense_inverse(EKFAC(uncovered="diagonal"), system)

    assert inverse.isfinite().all()
    assert torch.linalg.eigvalsh(0.5 * (inverse + inverse.T)).min() > 0


@pytest.mark.parametrize("case", ["classifier", "tokens"])
def test_single_precision_is_double_precision_within_its_tolerance(case):
    """The same M⁻¹ v comes out in float32."""
    single, exact = build(case, dtype=torch.float32), build(case)
    inverses = [dense_inverse(EKFAC("exact"), system_of(each)) for each in (single, exact)]

    assert inverses[0].dtype == torch.float32
    assert_close(inverses[0].double(), inverses[1], rtol=1e-3, atol=1e-3)


def test_the_work_is_counted():
    """Eigenvectors, rotations and the sweep are part of the gradient equivalents of an update."""
    spent = {}
    for name, preconditioner in (("none", bdhf.optim.NoPreconditioner()), ("ekfac", EKFAC())):
        case = build("classifier")
        solver = bdhf.CG(max_iters=2, tol=0, preconditioner=preconditioner)
        info = optimizer_of(case, solver=solver).step(case.batch)
        spent[name] = info.gradient_equivalents
        assert info.products == pytest.approx(2.0)

    assert spent["ekfac"] > spent["none"] + 1


def test_one_draw_is_swept_once():
    """D takes the cotangents of the factors; with "exact" columns they are swept again."""
    samples = system_of(build("mlp")).matrix.site_samples()
    calls = []

    def counted(columns):
        calls.append(len(columns))
        return samples.records[0].cotangents(columns)

    counting = replace(samples, records=(replace(samples.records[0], cotangents=counted),))
    EKFAC(2).factors(counting, SEED)
    assert calls == [2]
    EKFAC("exact").factors(counting, SEED)
    assert calls == [2, 3, 3]


def test_a_parameter_without_a_kronecker_product_is_refused_with_ways_out():
    """A weight that is used in two ways is named, and `uncovered` as the way to go on."""
    case = build("tied")
    solver = bdhf.CG(preconditioner=EKFAC())
    before = flat_parameters(case)

    with pytest.raises(
        CurvatureError, match=naming("EKFAC", "encoder.weight", 'uncovered="diagonal"')
    ):
        optimizer_of(case, solver=solver).step(case.batch)
    assert torch.equal(flat_parameters(case), before)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"samples": 0}, ("samples", "1", "exact", "0")),
        ({"samples": "all"}, ("samples", "exact", "all")),
        ({"sharing": "sum"}, ("sharing", "expand", "reduce", "sum")),
        ({"uncovered": "skip"}, ("uncovered", "error", "diagonal", "skip")),
    ],
)
def test_settings_out_of_range_are_errors(settings, named):
    """The class, the argument and what is allowed are named."""
    with pytest.raises(ValueError, match=naming("EKFAC", *named)):
        EKFAC(**settings)

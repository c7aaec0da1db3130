"""K-FAC as a preconditioner: its formula, where it is exact, and what it leaves alone."""

import warnings
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import CG, KFAC, Stop
from bdhf.optim.solvers import System
from bdhf.optim.solvers.preconditioners.moments import DenseMoment, FewVectors
from bdhf.optim.vectors.layout import layout_of
from tests.cases import CASES, Case, build
from tests.messages import naming
from tests.optim.optimizers import dense_step, optimizer_of
from tests.optim.partitions import PARTITIONS
from tests.oracles import cut, dense_ggn

with warnings.catch_warnings():  # a dependency of it uses torch.jit.script, which warns
    warnings.filterwarnings("ignore", "`torch.jit.script")
    import curvlinops

LAMBDA = 0.3

#: The cases with a parameter that no site covers, whatever the partition.
WITHOUT_SITES = {"tied"}

#: The partitions of whole rows.
WHOLE = ["full", "per_layer", "per_neuron", "groups", "blend"]


def curvature_of(case, partition="full", batch=None, dtype=torch.float64):
    """The GGN of a case, under a partition of the table."""
    return bdhf.block_curvature(
        case.model,
        case.loss_fn,
        case.batch if batch is None else batch,
        partition=PARTITIONS[partition](layout_of(case.model)),
    )


def system_of(matrix, damping=LAMBDA):
    """The systems of a curvature with zero right-hand sides."""
    zero = torch.zeros_like(matrix._product.gradient)
    lam = torch.full((len(matrix._blocks.rows),), damping, dtype=zero.dtype)
    return System(matrix._blocks, matrix._product, zero, lam)


def dense_inverse(matrix, kfac, damping=LAMBDA):
    """M⁻¹ in the order of the parameters, (P, P)."""
    inverse, blocks = kfac(system_of(matrix, damping)), matrix._blocks
    units = torch.eye(blocks.layout.size, dtype=torch.float64)
    with torch.no_grad():
        return torch.stack([blocks.scatter(inverse(blocks.gather(unit))) for unit in units], 1)


def factors_of(matrix, kfac):
    """A and S of every part, by the name of its first parameter."""
    made, _ = kfac.factors(matrix._product.site_samples(), 0)
    return {factors.part.name: factors for factors in made}


def undamped(matrix, kfac):
    """S ⊗ A on the rows of every part, zero elsewhere; (P, P) in the order of the parameters."""
    dense = torch.zeros(matrix.shape, dtype=torch.float64)
    for factors in factors_of(matrix, kfac).values():
        rows = [r for r in (factors.part.weight, factors.part.bias) if r is not None]
        positions = torch.cat([r.positions for r in rows], 1)
        groups = positions.chunk(len(factors.a.dense()))
        for a, s, of_group in zip(factors.a.dense(), factors.s.dense(), groups, strict=True):
            at = of_group.reshape(-1)
            dense[at[:, None], at] = torch.kron(s, a)
    return dense


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_m_is_symmetric_positive_definite_and_stays_within_the_blocks(case, partition):
    """M⁻¹ of every block is symmetric, its eigenvalues are positive, and nothing leaves a block."""
    G = curvature_of(build(case), partition)

    inverse = dense_inverse(G, KFAC(uncovered="diagonal"))

    assert_close(inverse, inverse.T)
    assert torch.linalg.eigvalsh(inverse).min() > 0
    assert_close(cut(inverse, G._blocks.positions()), inverse)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_cg_with_kfac_converges_to_the_solution_of_the_blocks(case, partition):
    """A preconditioner changes the way, and not where it ends."""
    case = build(case)
    solver = CG(max_iters=500, tol=0, residual_tol=1e-12, preconditioner=KFAC(uncovered="diagonal"))
    optimizer = optimizer_of(
        case, partition, solver=solver, damping=bdhf.Constant(LAMBDA), lr=1.0, check=False
    )
    before = torch.cat([p.detach().reshape(-1) for p in optimizer.objective.parameters])
    expected = dense_step(case, optimizer, LAMBDA)

    optimizer.step(case.batch)

    after = torch.cat([p.detach().reshape(-1) for p in optimizer.objective.parameters])
    assert_close(after - before, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", sorted(set(CASES) - WITHOUT_SITES))
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("partition", ["per_neuron", "per_layer"])
def test_a_partition_into_rows_cuts_m(case, sharing, partition):
    """M of blocks of rows is M of whole layers, cut to the blocks, where λ is one number."""
    case = build(case)
    kfac = KFAC("exact" if case.recognised else 3, sharing)

    whole = dense_inverse(curvature_of(case), kfac).inverse()
    G = curvature_of(case, partition)
    expected = cut(whole, G._blocks.positions())

    assert_close(dense_inverse(G, kfac).inverse(), expected, rtol=1e-6, atol=1e-9)


def linear_network(*sizes, bias=True):
    """Linear layers in sequence, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers = [nn.Linear(i, o, bias=bias) for i, o in pairwise(sizes)]
        return nn.Sequential(*layers).double()


def normal(*shape, seed=0):
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class MeanOfPositions(nn.Module):
    """Linear layers at every position, and the mean of the positions."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x).mean(1)


#: Deep linear networks with squared error: name -> (model, inputs, outputs' shape, sharing).
DEEP_LINEAR = {
    "plain": (lambda: linear_network(4, 5, 3), normal(7, 4), "expand"),
    "one sample": (lambda: linear_network(4, 5, 3), normal(1, 4), "expand"),
    "wide": (lambda: linear_network(9, 8, 7, bias=False), normal(3, 9), "reduce"),
    "positions": (lambda: linear_network(3, 4, 2), normal(5, 6, 3), "expand"),
    "mean of positions": (
        lambda: MeanOfPositions(linear_network(3, 4, 2)), normal(5, 6, 3), "reduce",
    ),
    "one pixel": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 1)).double(),
        normal(4, 2, 3, 3), "expand",
    ),
    "transposed pixel": (
        lambda: nn.Sequential(nn.ConvTranspose1d(2, 3, 1), nn.Conv1d(3, 2, 1)).double(),
        normal(4, 2, 5), "expand",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEEP_LINEAR)
def test_exact_factors_are_the_ggn_of_each_layer_on_deep_linear_networks(name):
    """S ⊗ A = G of every layer for squared error, any batch, and any depth."""
    make, x, sharing = DEEP_LINEAR[name]
    model = make()
    case = Case(model, F.mse_loss, (x, torch.zeros_like(model(x))))
    G = curvature_of(case, "per_layer")

    assert_close(undamped(G, KFAC("exact", sharing)), G.to_dense())


#: Models of curvlinops' layers, with inputs.
MODELS = {
    "deep linear": (lambda: linear_network(4, 5, 3), normal(6, 4)),
    "tanh": (
        lambda: nn.Sequential(linear_network(4, 5), nn.Tanh(), linear_network(5, 3)), normal(6, 4),
    ),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 2),
            nn.Flatten(), nn.Linear(8, 3),
        ).double(),
        normal(6, 2, 6, 6),
    ),
    "mean of positions": (
        lambda: MeanOfPositions(
            nn.Sequential(linear_network(4, 5), nn.Tanh(), linear_network(5, 3))
        ),
        normal(6, 4, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.CrossEntropyLoss(), nn.MSELoss(reduction="sum")])
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("name", MODELS)
def test_exact_factors_are_those_of_curvlinops(loss, name, sharing):
    """S ⊗ A equals the type-2 K-FAC of an independent library, weight and bias together."""
    make, x = MODELS[name]
    model = make()
    y = normal(6, 3, seed=1) if isinstance(loss, nn.MSELoss) else torch.arange(6) % 3
    G = curvature_of(Case(model, loss, (x, y)), "per_layer")

    other = curvlinops.KFACLinearOperator(
        model, loss, list(model.parameters()), [(x, y)], kfac_approx=sharing,
        fisher_type="type-2", separate_weight_and_bias=False, check_deterministic=False,
    )  # fmt: skip

    expected = other @ torch.eye(G.shape[0], dtype=torch.float64)
    assert_close(undamped(G, KFAC("exact", sharing)), expected)


def by_hooks(model, loss_fn, batch):
    """A and S of linear layers from the Jacobians of the outputs, sample by sample."""
    x, y = batch
    seen = {}
    names = {m: name for name, m in model.named_modules() if isinstance(m, nn.Linear)}

    def look(module, args, out):
        seen[names[module]] = args[0], out

    handles = [module.register_forward_hook(look) for module in names]
    z = model(x)
    for handle in handles:
        handle.remove()
    hessian = torch.autograd.functional.hessian(
        lambda flat: loss_fn(flat.view(z.shape), y), z.detach().reshape(-1)
    )
    made = {}
    for name, (a, out) in seen.items():
        ones = torch.cat([a.detach(), torch.ones(len(a), 1, dtype=a.dtype)], 1)
        s = 0
        rows = [torch.autograd.grad(e, out, retain_graph=True)[0] for e in z.reshape(-1)]
        jacobian = torch.stack(rows)  # (N·C, N, features)
        for n in range(len(x)):
            s = s + jacobian[:, n].T @ hessian @ jacobian[:, n]
        made[f"{name}.weight"] = (ones.T @ ones / len(a), s)
    return made


@pytest.mark.parametrize("case", ["mlp", "classifier", "sum_bce"])
def test_m_is_its_formula(case):
    """M = (S + √λ/π I) ⊗ (A + π√λ I), A and S from Jacobians; exact damping where S = c I."""
    case = build(case)
    G = curvature_of(case, "per_layer")
    inverse = dense_inverse(G, KFAC("exact"))
    factors = factors_of(G, KFAC("exact"))

    for name, (a, s) in by_hooks(case.model, case.loss_fn, case.batch).items():
        part = factors[name].part
        at = torch.cat([part.weight.positions, part.bias.positions], 1).reshape(-1)
        pi = ((a.trace() / len(a)) / (s.trace() / len(s))).sqrt()
        root = LAMBDA**0.5
        expected = torch.kron(s + root / pi * torch.eye(len(s)), a + pi * root * torch.eye(len(a)))
        if torch.equal(s, s[0, 0] * torch.eye(len(s), dtype=s.dtype)):
            expected = torch.kron(s, a) + LAMBDA * torch.eye(len(at))
        assert_close(inverse[at[:, None], at].inverse(), expected)


@pytest.mark.parametrize("case", ["mlp", "classifier", "conv", "tokens", "peephole", "own_loss"])
def test_random_factors_are_exact_in_expectation(case):
    """The mean of S over many draws is the S of all columns, within five standard errors."""
    case = build(case)
    G = curvature_of(case)
    samples = G._product.site_samples()

    singles = [KFAC(1).factors(samples, seed)[0] for seed in range(300)]
    many = KFAC(20_000).factors(samples, 0)[0]

    for index, reference in enumerate(many):
        draws = torch.stack([made[index].s.dense() for made in singles])
        error = draws.std(0) / len(draws) ** 0.5 + 0.05 * reference.s.dense().abs().max()
        assert bool(((draws.mean(0) - reference.s.dense()).abs() <= 5 * error).all())


@pytest.mark.parametrize("case", sorted(set(CASES) - WITHOUT_SITES - {"own_loss"}))
def test_micro_batches_add_up(case):
    """Exact factors of the pieces of a batch are those of the batch."""
    case = build(case)
    x, y = case.batch
    pieces = [(x[:2], y[:2]), (x[2:], y[2:])]

    whole = dense_inverse(curvature_of(case), KFAC("exact"))

    assert_close(dense_inverse(curvature_of(case, batch=pieces), KFAC("exact")), whole)


#: Affine functions and their inputs, as modules: every option changes what a feature reads.
AFFINE = {
    "linear": (nn.Linear(3, 4), normal(2, 3)),
    "positions": (nn.Linear(3, 4), normal(2, 5, 3)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), normal(2, 4, 7)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=1, dilation=2), normal(2, 4, 7, 6)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), normal(2, 4, 5, 5)),
    "same": (nn.Conv2d(2, 3, 3, padding="same"), normal(2, 2, 5, 5)),
    "reflected": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), normal(2, 2, 5, 5)),
    "conv3d": (nn.Conv3d(2, 3, 2, stride=2), normal(2, 2, 4, 4, 4)),
    "transposed": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        normal(2, 4, 3, 3),
    ),
    "transposed1d": (nn.ConvTranspose1d(4, 2, 3, dilation=2), normal(2, 4, 5)),
    "transposed3d": (nn.ConvTranspose3d(2, 2, 2), normal(2, 2, 3, 3, 3)),
    "layer norm": (nn.LayerNorm((3, 4)), normal(2, 5, 3, 4)),
    "group norm": (nn.GroupNorm(2, 4), normal(2, 4, 3)),
    "rms norm": (nn.RMSNorm(4), normal(2, 3, 4)),
    "embedding": (nn.Embedding(6, 3), torch.tensor([[0, 5, 2], [1, 1, 3]])),
    "padded": (nn.Embedding(6, 3, padding_idx=1), torch.tensor([[0, 5, 2], [1, 1, 3]])),
}


@pytest.mark.parametrize("name", AFFINE)
def test_the_inputs_of_a_site_are_what_its_rows_multiply(name):
    """Y = a · (row of the weight) + bias for every feature, by the inputs of its group."""
    module, x = AFFINE[name]
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(normal(*parameter.shape, seed=2))
    G = curvature_of(Case(module, F.mse_loss, (x, torch.zeros_like(module(x)))))
    samples = G._product.site_samples()
    theta = torch.cat([p.detach().reshape(-1) for p in module.parameters()])

    part = next(part for part in samples.parts if part.weight is not None)
    record = samples.records[0]
    n, t, groups, features = record.shapes[part.site]
    rows = part.weight.of(theta).reshape(groups, features, -1)
    a = record.inputs[part.site]
    vectors = a.values if name not in ("embedding", "padded") else one_hot(a)
    y = torch.einsum("ntge,gfe->ntgf", vectors, rows)
    if part.bias is not None:
        y = y + part.bias.of(theta).reshape(groups, features)
    expected = module(x) if name != "padded" else module(x) * (x != 1)[..., None]
    _, *spread = expected.shape
    by_feature = expected.reshape(n, -1) if t == 1 else features_last(name, expected)
    assert_close(y.reshape(by_feature.shape), by_feature)
    assert len(spread) >= 1


def one_hot(a):
    """One-hot inputs as vectors, (N, T, 1, entries)."""
    hot = F.one_hot(a.index.clamp_min(0), a.entries).double() * (a.index >= 0)[..., None]
    return hot.unsqueeze(2)


def features_last(name, y):
    """Y of a module as (N, positions, features)."""
    if "conv" in name or "transposed" in name or name in ("depthwise", "same", "reflected"):
        return y.flatten(2).transpose(1, 2)
    if name == "group norm":
        return y.transpose(1, 2)
    if name == "layer norm":
        return y.flatten(2)
    return y


@pytest.mark.parametrize("vectors", [3, 8])
def test_woodbury_inverts_what_cholesky_inverts(vectors):
    """A moment of few vectors and its matrix have one damped inverse."""
    x, shift = normal(2, vectors, 5), torch.tensor([[0.3], [2.0]], dtype=torch.float64)
    v = normal(2, 5, 4, seed=1)

    few = FewVectors(x)
    dense = DenseMoment(x.mT @ x)

    assert_close(few.damped(shift)(v), dense.damped(shift)(v))
    assert_close(few.mean, dense.mean)
    assert_close(few.dense(), dense.dense())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("damping", [1e-5, 1e-2])
def test_a_block_whose_inverse_is_exact_rests_after_one_step(dtype, damping):
    """The last layer under squared error is solved by one step, whatever else goes on."""
    model = nn.Sequential(linear_network(6, 8), nn.Tanh(), linear_network(8, 4)).to(dtype)
    batch = normal(40, 6).to(dtype), normal(40, 4, seed=1).to(dtype)
    solver = CG(max_iters=30, tol=0, warm_start=0, preconditioner=KFAC())
    optimizer = bdhf.BlockHessianFree(
        model, F.mse_loss, solver=solver, damping=bdhf.Constant(damping), check=False
    )

    infos = [optimizer.step(batch) for _ in range(5)]

    assert [info.cg_iterations[1] for info in infos] == [1] * 5
    assert all(info.stop[1] == Stop.CONVERGED for info in infos)
    assert all(info.cg_iterations[0] > 1 for info in infos)
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("case", CASES)
def test_uncovered_parameters_are_refused_by_name(case):
    """Every case with a parameter of no site raises, and no other does."""
    G = curvature_of(build(case))
    first = next(iter(G._product.site_samples().uncovered), None)

    if case in WITHOUT_SITES:
        with pytest.raises(bdhf.BdhfError, match=naming("KFAC", first, 'uncovered="diagonal"')):
            KFAC()(system_of(G))
    else:
        assert dense_inverse(G, KFAC()).isfinite().all()


@pytest.mark.parametrize("case", ["mlp", "classifier"])
def test_rows_that_are_cut_have_the_diagonal_of_the_fisher_matrix(case):
    """Under a partition that cuts the rows of weights, M is diag(Σ (Jᵀs)²) + λ on them."""
    case = build(case)
    G = curvature_of(case, "thirds")
    rest = G._product.site_samples().rest

    inverse = dense_inverse(G, KFAC("exact", uncovered="diagonal"))

    expected = (dense_ggn(case).diagonal() + LAMBDA).reciprocal().diag()
    assert_close(inverse[rest], expected[rest])
    assert len(rest) == sum(p.numel() for p in case.model.parameters() if p.dim() > 1)


def step_of(case, dtype):
    """The first step of a case in a precision, (P,)."""
    case = build(case)
    model, loss_fn = case.model.to(dtype), case.loss_fn
    if isinstance(loss_fn, nn.Module):
        loss_fn = loss_fn.to(dtype)
    x, y = (t.to(dtype) if t.is_floating_point() else t for t in case.batch)
    kfac = KFAC("exact" if case.recognised else 1)
    optimizer = bdhf.BlockHessianFree(
        model, loss_fn, solver=CG(max_iters=3, tol=0, preconditioner=kfac),
        damping=bdhf.Constant(LAMBDA), lr=0.5, check=False,
    )  # fmt: skip
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step((x, y))
    pairs = zip(model.parameters(), before, strict=True)
    return torch.cat([(p.detach() - start).reshape(-1) for p, start in pairs])


@pytest.mark.parametrize("case", sorted(set(CASES) - WITHOUT_SITES))
def test_single_precision_takes_the_step_of_double_precision(case):
    """Three iterations in float32 are those in float64 within rounding."""
    single, double = step_of(case, torch.float32), step_of(case, torch.float64)

    assert_close(single.double(), double, rtol=1e-2, atol=1e-4)


def test_draws_belong_to_the_update():
    """Two optimizers with one seed take one step; another seed takes another."""
    steps = []
    for seed in (0, 0, 1):
        case = build("classifier")
        solver = CG(max_iters=2, preconditioner=KFAC())
        optimizer = bdhf.BlockHessianFree(
            case.model, case.loss_fn, solver=solver, seed=seed, check=False
        )
        for _ in range(2):
            optimizer.step(case.batch)
        steps.append(torch.cat([p.detach().reshape(-1) for p in case.model.parameters()]))

    assert torch.equal(steps[0], steps[1])
    assert not torch.equal(steps[0], steps[2])


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"samples": 0}, ("KFAC", "samples", "exact", "0")),
        ({"samples": "all"}, ("KFAC", "samples", "exact", "'all'")),
        ({"sharing": "sum"}, ("KFAC", "sharing", "expand", "reduce")),
        ({"uncovered": "skip"}, ("KFAC", "uncovered", "error", "diagonal")),
    ],
)
def test_settings_out_of_range_are_refused(settings, names):
    """The refusal names the argument and what is allowed."""
    with pytest.raises(ValueError, match=naming(*names)):
        KFAC(**settings)

"""Gram matrices from the sites of a model: the solution of the dense factor, in bounded memory."""

import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim.products.cost import CostWarning
from bdhf.optim.products.layer_io import sampling
from bdhf.optim.products.layer_io.output_factor import sweep_factor
from bdhf.optim.solvers import sample_space
from bdhf.optim.solvers.gram import assemble, block_factor, columns, cotangents
from bdhf.optim.solvers.gram.assemble import block_factors
from tests.cases import CASES, build
from tests.messages import naming
from tests.optim.case_systems import phi, solve, system_of
from tests.optim.curvatures import CURVATURES, DEFINED, INDEFINITE
from tests.optim.optimizers import EXACT, dense_step, optimizer_of
from tests.oracles import blocked, dense_ggn, flat_parameters

SITES = bdhf.SampleSpace(gram="sites", chunk=5)

#: Every case under the GGN, and some under every other curvature, on partitions of each kind.
COMBINATIONS = [
    *((case, "ggn", partition) for case in CASES for partition in ("full", "per_layer")),
    *(
        (case, curvature, partition)
        for case in ("classifier", "conv", "tied", "embedding", "norms", "tokens")
        for curvature in CURVATURES
        for partition in ("per_neuron", "thirds", "blend")
        if curvature not in INDEFINITE and (case, curvature) in DEFINED
    ),
]


def quietly(solver, system):
    """Solve, whatever is swept row by row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)
        return solve(solver, system)


def bounded(monkeypatch, size):
    """Let the Gram matrices hold this many bytes of anything."""
    for module in (assemble, block_factor):
        monkeypatch.setattr(module, "HELD_BYTES", size)
    for kind in (columns.SweptColumns, cotangents.SiteCotangents):
        *defaults, _ = kind.__init__.__defaults__
        monkeypatch.setattr(kind.__init__, "__defaults__", (*defaults, size))


@pytest.mark.parametrize(("case", "curvature", "partition"), COMBINATIONS)
def test_every_block_is_solved(case, curvature, partition):
    """(G_bb + λ_b I) x_b = -g_b by the dense matrix, and φ is that of the solution."""
    case = build(case)
    system = system_of(case, curvature, partition)
    blocks = system.blocks
    lam = blocks.add_scaled_(torch.zeros_like(system.rhs), system.damping, system.rhs * 0 + 1)
    matrix = blocked(CURVATURES[curvature][1](case), blocks) + blocks.scatter(lam).diag()
    rhs = blocks.scatter(system.rhs)

    solution = quietly(SITES, system)

    assert_close(blocks.scatter(solution.x), torch.linalg.solve(matrix, rhs), rtol=0, atol=1e-9)
    assert_close(solution.model, phi(system, solution.x))
    assert set(solution.stop) == {bdhf.optim.Stop.CONVERGED}
    assert torch.equal(solution.iterates[0].x, solution.x)


@pytest.mark.parametrize("partition", ["full", "per_layer", "per_neuron"])
@pytest.mark.parametrize("case", ["mlp", "classifier", "conv", "embedding"])
def test_it_is_converged_cg_to_eight_digits_at_small_damping(case, partition):
    """At λ ≥ 1e-3 the relative difference is at most 1e-8."""
    system = system_of(build(case), "ggn", partition, 1e-3)
    expected = solve(EXACT, system).x

    difference = quietly(SITES, system).x - expected

    assert float(difference.norm()) <= 1e-8 * float(expected.norm())


@pytest.mark.parametrize("case", ["mlp", "conv", "tied", "embedding", "norms"])
@pytest.mark.parametrize("partition", ["full", "per_neuron"])
def test_a_bound_of_bytes_changes_nothing_but_sweeps(monkeypatch, case, partition):
    """With little memory sites are swept in turn and tiles are small; the solution is the same."""
    system = system_of(build(case), "ggn", partition)
    expected = quietly(SITES, system)
    bounded(monkeypatch, 1000)

    solution = quietly(SITES, system)

    assert_close(solution.x, expected.x, rtol=0, atol=1e-9)
    assert solution.products[0] > expected.products[0]


@pytest.mark.parametrize("case", ["mlp", "embedding", "conv", "transposed", "norms", "reused"])
@pytest.mark.parametrize("by_positions", [True, False])
@pytest.mark.parametrize("size", [1024, 2**20])
def test_both_ways_to_a_gram_matrix_agree(monkeypatch, case, by_positions, size):
    """Inner products over positions and rows of A give A Aᵀ of every piece, in any tiles."""
    system = system_of(build(case), "ggn", "full")
    (factor,) = block_factors(system, 5).rows
    monkeypatch.setattr(
        "bdhf.optim.solvers.gram.site_piece.SitePiece._by_positions", lambda *_: by_positions
    )
    for piece in factor.pieces:
        a, gram = piece.columns(factor.rows), torch.zeros(factor.rows, factor.rows).double()

        piece.add_gram(gram, size)

        assert_close(gram, a @ a.T)


@pytest.mark.parametrize("curvature", ["ggn", "fisher", "empirical_fisher"])
@pytest.mark.parametrize("case", ["classifier", "conv", "embedding", "tied"])
def test_the_pieces_are_the_columns_of_the_factor(case, curvature):
    """A by sites has the AᵀA of the dense factor, and A v and Aᵀ w are products with it."""
    system = system_of(build(case), curvature, "full")
    (factor,) = block_factors(system, 5).rows
    total, flat = factor.rows, torch.randn(len(system.rhs)).double()
    w = torch.randn(total).double()
    at = torch.cat([piece.positions for piece in factor.pieces])
    a = torch.cat([piece.columns(total) for piece in factor.pieces], 1)
    dense = system.matrix.factor(5)
    back = torch.zeros_like(flat)
    for piece in factor.pieces:
        piece.add_adjoint(w, back)

    assert sorted(at.tolist()) == list(range(len(flat)))
    assert_close(a.T @ a, (dense.T @ dense)[at][:, at])
    assert_close(sum(piece.forward(flat, total) for piece in factor.pieces), a @ flat[at])
    assert_close(back[at], a.T @ w)


@pytest.mark.parametrize("case", ["mlp", "classifier", "sum_bce", "tied", "embedding"])
@pytest.mark.parametrize("sizes", [[1, 3], [3, 1]])
def test_steps_of_micro_batches_are_those_of_the_whole_batch(case, sizes):
    """Rows of different micro-batches meet in one Gram matrix."""
    whole, pieces = build(case), build(case)
    x, y = (part[:4] for part in whole.batch)
    whole = replace(whole, batch=(x, y))
    optimizer = optimizer_of(pieces, "full", solver=SITES, damping=bdhf.Constant(0.05), lr=1.0)
    expected = flat_parameters(whole) + dense_step(whole, optimizer, 0.05)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)
        optimizer.step(list(zip(x.split(sizes), y.split(sizes), strict=True)))

    assert_close(flat_parameters(pieces), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("case", ["mlp", "classifier", "conv"])
def test_single_precision_is_double_precision_within_its_tolerance(case):
    """The same step comes out in float32."""
    single, double = build(case, dtype=torch.float32), build(case)
    before = flat_parameters(single)
    optimizer = optimizer_of(single, solver=SITES, damping=bdhf.Constant(0.05), lr=1.0)
    expected = dense_step(double, optimizer, 0.05)

    optimizer.step(single.batch)

    assert_close((flat_parameters(single) - before).double(), expected, rtol=1e-3, atol=1e-4)


def test_columns_are_swept_one_by_one_where_torch_cannot_sweep_several(monkeypatch):
    """A model without a sweep for several cotangents at once has the same solution."""
    system = system_of(build("conv"))
    expected = solve(SITES, system).x

    def of_one(outputs, edges, cotangents):
        if len(cotangents) > 1:
            raise RuntimeError("no batching rule")
        return sweep_factor(outputs, edges, cotangents)

    monkeypatch.setattr(sampling, "sweep_factor", of_one)

    assert_close(solve(SITES, system).x, expected)


def test_a_right_hand_side_that_is_not_finite_moves_nothing():
    """NaN in one block: it stays at 0 with stop "nonfinite"; the others are solved."""
    system = system_of(build("mlp"))
    clean, rhs = solve(SITES, system), system.rhs.clone()
    rhs[30] = float("nan")  # in the second block

    solution = solve(SITES, replace(system, rhs=rhs))

    stay = torch.zeros_like(rhs)
    stay[25:49] = 1  # the second block
    assert solution.stop == ("converged", "nonfinite", "converged")
    assert torch.equal(solution.x, torch.where(stay == 1, 0, clean.x))


@pytest.mark.parametrize("layers", [[3, 1], [3, 3, 1]])
def test_rounding_that_eats_the_damping_is_no_solution(layers):
    """In float32 λ = 1e-12 and a factor of rank 1 give stop "nonfinite", and no step."""
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(layers)))
    optimizer = bdhf.BlockHessianFree(
        model, F.mse_loss, partition=bdhf.Full(), solver=SITES, damping=bdhf.Constant(1e-12)
    )
    before = torch.nn.utils.parameters_to_vector(model.parameters())

    info = optimizer.step((torch.ones(5, 3), torch.ones(5, 1)))

    assert info.stop == ("nonfinite",)
    assert torch.equal(torch.nn.utils.parameters_to_vector(model.parameters()), before)


@pytest.mark.parametrize("method", ["propagate", "layer_io"])
def test_an_update_costs_as_much_as_the_one_before(method):
    """What is swept row by row is counted once, however products are computed."""
    case = build("embedding")
    optimizer = optimizer_of(case, "pairs", solver=SITES, method=method, check=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)
        costs = [optimizer.step(case.batch).gradient_equivalents for _ in range(3)]

    assert costs[0] == costs[1] == costs[2] > 0


def test_a_sweep_takes_a_column_of_all_samples():
    """3 outputs are 3 sweeps of half a product each, not one for each of 21 rows."""
    system = system_of(build("mlp"))

    assert set(solve(SITES, system).products) == {1.5}
    assert set(solve(bdhf.SampleSpace(), system).products) == {10.5}


@pytest.mark.parametrize(
    ("case", "partition", "facts"),
    [
        ("tied", "per_layer", ("encoder.weight", "used")),
        ("mlp", "thirds", ("0.weight", "partition")),
        ("mlp", "blend", ("all", "sum")),
        ("own_loss", "full", ("all", "loss")),
    ],
)
def test_what_is_swept_row_by_row_is_named(case, partition, facts):
    """A warning gives the parameter and the reason."""
    system = system_of(build(case), "ggn", partition)

    with pytest.warns(CostWarning, match=naming("SampleSpace", *facts)):
        solve(SITES, system)


def test_parameters_that_the_outputs_do_not_reach_take_no_sweep():
    """Their columns are zero: d = -g / λ; 3 outputs are 3 sweeps."""
    system = system_of(build("unused"), "ggn", "full")

    solution = solve(SITES, system)

    assert solution.products == (1.5,)
    assert solution.x[-10:].tolist() == [0.0] * 10


def test_a_factor_above_the_bound_takes_the_sites(monkeypatch):
    """A of more bytes than the bound is never made; below it, None is the factor."""
    system = system_of(build("mlp"))
    expected = solve(SITES, system)
    assert solve(bdhf.SampleSpace(), system).products != expected.products
    size = system.matrix.factor_rows * len(system.rhs) * 8

    monkeypatch.setattr(sample_space, "MAX_FACTOR_BYTES", size - 1)

    with pytest.warns(CostWarning, match=naming("SampleSpace", 21, len(system.rhs), "sites")):
        solution = solve(bdhf.SampleSpace(chunk=5), system)
    assert torch.equal(solution.x, expected.x)


@pytest.mark.parametrize("solver", [SITES, bdhf.CG(preconditioner=bdhf.KFAC())], ids=str)
def test_sites_have_the_precision_of_the_model(solver):
    """Products in bfloat16 leave inputs and cotangents in float64."""
    case = build("mlp")

    info = optimizer_of(case, solver=solver, product_dtype=torch.bfloat16).step(case.batch)

    assert set(info.stop) <= {"converged", "progress"}


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"gram": "rows"}, ("SampleSpace", "gram", "sites", "rows")),
        ({"carry": 1.0}, ("SampleSpace", "carry", 1.0)),
        ({"carry": -0.1}, ("SampleSpace", "carry", 0)),
        ({"carry": float("nan")}, ("SampleSpace", "carry", "nan")),
    ],
)
def test_settings_out_of_range_are_errors(settings, facts):
    """A value that has no meaning is refused where it is given, by name."""
    with pytest.raises(ValueError, match=naming(*facts)):
        bdhf.SampleSpace(**settings)


@pytest.mark.parametrize("gram", [None, "sites"])
@pytest.mark.parametrize("partition", ["full", "per_layer", "per_neuron"])
@pytest.mark.parametrize("penalty", [0.0, 0.2])
def test_carry_keeps_the_part_of_the_last_direction_that_the_batch_does_not_see(
    gram, partition, penalty
):
    """d₂ = (G + (λ + μ) I)⁻¹(-g + λ c d₁) over two updates, and φ is that of the model at d₂."""
    case, lam, carry = build("mlp"), 0.05, 0.9
    solver = bdhf.SampleSpace(gram=gram, carry=carry)
    optimizer = optimizer_of(
        case, partition, solver=solver, damping=bdhf.Constant(lam),
        regularization=bdhf.L2(penalty), lr=1.0,
    )  # fmt: skip
    last = torch.zeros_like(flat_parameters(case))
    for _ in range(2):
        theta = flat_parameters(case)
        matrix = blocked(dense_ggn(case), optimizer.blocks)
        damped = matrix + (lam + penalty) * torch.eye(len(matrix)).double()
        plain = dense_step(case, optimizer, lam + penalty)
        g = -damped @ plain + penalty * theta
        last = torch.linalg.solve(damped, -g + lam * carry * last)
        before = optimizer_loss(case, penalty)
        predicted = g @ last + 0.5 * last @ (damped - lam * torch.eye(len(g))) @ last

        info = optimizer.step(case.batch)

        after = optimizer_loss(case, penalty)
        assert_close(flat_parameters(case) - theta, last, rtol=0, atol=1e-9)
        assert info.reduction_ratio == pytest.approx(float((after - before) / predicted), rel=1e-6)


def optimizer_loss(case, penalty):
    """The loss with its penalty."""
    with torch.no_grad():
        loss = case.loss_fn(case.model(case.batch[0]), case.batch[1])
    return loss + 0.5 * penalty * flat_parameters(case).square().sum()


@pytest.mark.parametrize("gram", [None, "sites"])
def test_a_carry_of_zero_is_none_to_the_bit(gram):
    """Three updates end at the same parameters."""
    ends = []
    for carry in (None, 0.0):
        case = build("classifier")
        optimizer = optimizer_of(case, solver=bdhf.SampleSpace(gram=gram, carry=carry))
        for _ in range(3):
            optimizer.step(case.batch)
        ends.append(flat_parameters(case))

    assert torch.equal(*ends)


def test_what_is_carried_survives_a_saved_state():
    """An optimizer with a loaded state takes the step of the one that was saved."""
    case = build("mlp")
    optimizer = optimizer_of(case, solver=bdhf.SampleSpace(carry=0.9))
    optimizer.step(case.batch)
    other = build("mlp")
    other.model.load_state_dict(case.model.state_dict())
    resumed = optimizer_of(other, solver=bdhf.SampleSpace(carry=0.9))
    resumed.load_state_dict(optimizer.state_dict())

    for each, model in ((optimizer, case), (resumed, other)):
        each.step(model.batch)

    assert torch.equal(flat_parameters(case), flat_parameters(other))


PEAK = """
import torch, bdhf
from torch import nn

def peak():
    with open("/proc/self/status") as status:  # getrusage has the peak of the parent too
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

torch.manual_seed(0)
sizes = [784, 1000, 500, 250, 100, 10]
layers = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.Tanh())]
model = nn.Sequential(*layers[:-1])
x, y = torch.randn(400, 784), torch.randint(0, 10, (400,))
optimizer = bdhf.BlockHessianFree(
    model, nn.functional.cross_entropy, partition=bdhf.Full(), solver=bdhf.SampleSpace(),
    damping=bdhf.Constant(1e-2), check=False,
)
nn.functional.cross_entropy(model(x), y).backward()
before = peak()
info = optimizer.step((x, y))
assert set(info.stop) == {"converged"}, info
print((peak() - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is on Linux only")
def test_four_thousand_rows_take_less_than_a_gibibyte():
    """784-1000-500-250-100-10 with 400 samples of 10 classes, whose A would take 23 GB."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)

    assert 0 < int(done.stdout) < 2**30

"""Models of all kinds: products are right in float32, or an error names where and what to do.

There is no third outcome. Which of the two it is stands in the tables of `tests/zoo`.
"""

import re

import pytest
import torch
from torch.nn.utils import parameters_to_vector

import bdhf
from bdhf.optim.errors import BdhfError
from tests.zoo import ZOO, build
from tests.zoo.covered import NOT_COVERED, classes_of_torch, kinds_in
from tests.zoo.oracle import SAMPLES, SEED, dense, oracle

#: Torch's warnings about its own operators, once per process.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in ("Sparse CSR", "LSTM with proj", "`torch.jit", "indexing with dtype torch.uint8")
]

CURVATURES = {
    "ggn": bdhf.GGN(),
    "hessian": bdhf.Hessian(),
    "fisher": bdhf.Fisher(samples=SAMPLES),
}
PARTITIONS = {
    "full": bdhf.Full(),
    "per_layer": bdhf.PerLayer(),
    "per_neuron": bdhf.PerNeuron(),
    "random": bdhf.Random(blocks=3, seed=0),
}
EXACT = bdhf.CG(max_iters=500, tol=0, residual_tol=1e-6)


def products(expected):
    """The (entry, curvature, partition) that should come out so, those of one entry together."""
    rows = [
        (name, curvature, partition)
        for name, entry in ZOO.items()
        for curvature in CURVATURES
        for partition in entry.partitions
        if entry.outcome(curvature) == expected
    ]
    return pytest.mark.parametrize(("name", "curvature", "partition"), rows)


def steps(expected):
    """The entries with this expected update."""
    names = [name for name, entry in ZOO.items() if entry.outcome("step") == expected]
    return pytest.mark.parametrize("name", names)


def block_curvature(name, curvature, partition):
    """The block curvature of an entry."""
    case = build(name)
    return bdhf.block_curvature(
        case.model,
        case.loss_fn,
        case.batch,
        curvature=CURVATURES[curvature],
        partition=PARTITIONS[partition],
        seed=SEED,
    )


def multiplied(name, curvature, partition):
    """A product of an entry."""
    G = block_curvature(name, curvature, partition)
    return G @ torch.ones(G.shape[0])


def optimizer(name, case):
    """The defaults, with a step that solves the damped system."""
    damping = bdhf.Constant(ZOO[name].damping)
    return bdhf.BlockHessianFree(case.model, case.loss_fn, solver=EXACT, damping=damping, lr=1.0)


def assert_near(actual, expected, blocks):
    """Equal within single precision, block by block."""
    slack = 1e-5 * expected.norm() + 1e-7
    for block in blocks:
        error = (actual.double() - expected)[block].norm()
        assert error <= 1e-3 * expected[block].norm() + slack


def assert_says(error, words):
    """All of the words are in the message."""
    for word in words:
        assert re.search(word, str(error)), f"no {word!r} in: {error}"


@products("right")
def test_products_and_gradient_are_those_of_the_dense_matrix(name, curvature, partition):
    """G v is the float64 matrix, cut to the blocks, times v; and g = ∇L."""
    G = block_curvature(name, curvature, partition)
    drawn_at = G._product.parts[0][1].outputs.detach()
    matrix = oracle(name).fisher(drawn_at) if curvature == "fisher" else dense(name, curvature)
    V = torch.randn(len(matrix), 2, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros_like(V, dtype=torch.float64)
    for block in G.blocks:
        expected[block] = matrix[block[:, None], block] @ V[block].double()

    assert_near(G @ V, expected, G.blocks)
    assert_near(G._blocks.scatter(G._product.gradient), oracle(name).gradient, G.blocks)


@products("refused")
def test_what_has_no_products_is_refused_with_a_way_out(name, curvature, partition):
    """The error is one of the method's own, and names where and what to do."""
    with pytest.raises(BdhfError) as caught:
        multiplied(name, curvature, partition)

    assert_says(caught.value, ZOO[name].words(curvature))


@products("doubted")
def test_products_that_torch_gets_wrong_do_not_pass_the_check(name, curvature, partition):
    """The products follow a wrong formula of torch: the check reports it."""
    check = block_curvature(name, curvature, partition).check()

    assert not check.passed
    assert_says(check.problem, ZOO[name].doubted[curvature])


@steps("right")
def test_an_update_solves_the_damped_blocks(name):
    """Δθ_b = -(G_bb + λI)⁻¹ g_b, once the check has passed."""
    assert_solves(name)


@steps("warned")
def test_an_update_without_curvature_is_warned_of(name):
    """Δθ_b = -g_b / λ, which nothing bounds."""
    with pytest.warns(bdhf.optim.CurvatureWarning, match=ZOO[name].warned):
        assert_solves(name)


def assert_solves(name):
    """The update of an entry is the dense solution."""
    case, before = build(name), oracle(name).theta
    method = optimizer(name, case)

    info = method.step(case.batch)

    matrix, gradient = dense(name, "ggn"), oracle(name).gradient
    expected = torch.zeros_like(gradient)
    for block in (blocks := method.blocks.positions()):
        damped = matrix[block[:, None], block] + ZOO[name].damping * torch.eye(len(block))
        expected[block] = -torch.linalg.solve(damped, gradient[block])
    moved = parameters_to_vector(method.objective.parameters).detach().double() - before
    assert_near(moved, expected, blocks)
    assert info.loss == pytest.approx(float(oracle(name).loss().detach()), rel=1e-4)


@steps("refused")
def test_an_update_that_cannot_be_right_is_refused_with_a_way_out(name):
    """The error is one of the method's own, and the parameters stay."""
    case = build(name)
    before = [p._version for p in case.model.parameters()]

    with pytest.raises(BdhfError) as caught:
        optimizer(name, case).step(case.batch)

    assert_says(caught.value, ZOO[name].words("step"))
    assert [p._version for p in case.model.parameters()] == before


def test_every_module_of_torch_is_in_the_zoo():
    """A module that a new torch brings is noticed: it is here, or there is a reason why not."""
    missing = classes_of_torch() - kinds_in(map(build, ZOO))

    assert {kind.__name__ for kind in missing} == set(NOT_COVERED)

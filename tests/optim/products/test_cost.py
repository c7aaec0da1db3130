"""What products cost, counted by hand on a multilayer perceptron, and the warning before it."""

import itertools
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bdhf
from bdhf.optim import CostWarning, estimate
from bdhf.optim.curvature import hessian_share
from bdhf.optim.estimate import Shared
from bdhf.optim.estimate import count_products as estimated
from bdhf.optim.forward.objective import Objective
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import Settings, linearise
from bdhf.optim.products.cost import sweeps
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.vectors.layout import layout_of
from tests.messages import naming

WIDTHS = (8, 16, 12, 4)
FIRST, SECOND, THIRD = 8 * 16, 16 * 12, 12 * 4  # multiplications of each layer and sample
SAMPLES = 10


def mlp():
    """Three layers without biases, and a batch."""
    sizes = itertools.pairwise(WIDTHS)
    layers = [layer for m, n in sizes for layer in (nn.Linear(m, n, bias=False), nn.Tanh())]
    return nn.Sequential(*layers[:-1]), (torch.randn(SAMPLES, 8), torch.randn(SAMPLES, 4))


def counted(partition, curvature=None, loss_fn=F.mse_loss, method="propagate", **settings):
    """The sweeps of a freshly linearised batch."""
    model, batch = mlp()
    flops = Flops()
    product = linearise(
        Objective.of(model, loss_fn),
        (batch,),
        curvature=curvature or bdhf.GGN(),
        blocks=cut(layout_of(model), partition),
        flops=flops,
        settings=Settings(method=method, **settings),
    )
    return sweeps(product, flops, SAMPLES)


#: A gradient is a sweep forward, and one back that does not go to the inputs.
GRADIENT = (FIRST + SECOND + THIRD) + (FIRST + 2 * SECOND + 2 * THIRD)
#: A product with the full matrix is J v and Jᵀ w, each as long as the sweep back.
FULL = 2 * (FIRST + 2 * SECOND + 2 * THIRD)
#: Cached inputs and output factors are multiplied by, and multiplied, layer by layer.
CACHED = 2 * (FIRST + SECOND + THIRD)
#: A product with a layer sweeps from it to the outputs and back.
LAYERS = (2 * (FIRST + SECOND + THIRD), 2 * (SECOND + THIRD), 2 * THIRD)


def test_the_full_matrix_costs_two_sweeps():
    """One block: the product with it is the product with the whole."""
    cost = counted(bdhf.Full())

    assert cost.blocks == pytest.approx((FULL / GRADIENT,))
    assert cost.whole == cost.blocks[0] == cost.product
    assert cost.sizes == (FIRST + SECOND + THIRD,)
    assert cost.gradient == 2 * GRADIENT  # FLOPs: a multiplication and an addition
    assert cost.blended == 0


def test_a_layer_costs_the_way_to_the_outputs_and_back():
    """Late layers are cheap, and all of them together cost more than the full matrix."""
    cost = counted(bdhf.PerLayer())

    assert cost.blocks == pytest.approx(tuple(layer / GRADIENT for layer in LAYERS))
    assert cost.product == pytest.approx(sum(LAYERS) / GRADIENT)
    assert cost.whole == pytest.approx(FULL / GRADIENT)
    assert cost.sizes == (FIRST, SECOND, THIRD)


def test_a_neuron_costs_as_much_as_its_layer():
    """Every block that cuts through a tensor is a sweep of that tensor's layer."""
    costs = counted(bdhf.PerNeuron(), max_bytes=1)  # no memory for a bottleneck

    expected = [LAYERS[i] for i, n in enumerate(WIDTHS[1:]) for _ in range(n)]
    assert costs.blocks == pytest.approx(tuple(cost / GRADIENT for cost in expected))
    assert costs.sizes == (8,) * 16 + (16,) * 12 + (12,) * 4


def test_a_neuron_in_front_of_a_bottleneck_costs_the_way_to_it_and_back():
    """Sixteen neurons of the first layer meet a matrix of 16² a sample, and no further layer."""
    cost = counted(bdhf.PerNeuron())

    assert cost.blocks[:16] == pytest.approx([(2 * FIRST + 16**2) / GRADIENT] * 16)
    assert cost.blocks[16:28] == pytest.approx([LAYERS[1] / GRADIENT] * 12)


@pytest.mark.parametrize("partition", [bdhf.PerNeuron(), bdhf.PerLayer(), bdhf.Full()])
def test_cached_layers_cost_one_sweep_for_all_blocks(partition):
    """By layer_io a product with all blocks is one sweep, and every block has its share of it."""
    cost = counted(partition, method="layer_io")

    assert cost.product == pytest.approx(CACHED / GRADIENT)
    sizes = sum(cost.sizes)
    assert cost.blocks == pytest.approx([cost.product * size / sizes for size in cost.sizes])
    columns = 4 * (SECOND + THIRD)  # swept once: four outputs, not to the inputs
    assert cost.setup >= columns / GRADIENT


def test_a_blend_costs_the_full_matrix_and_the_blocks_within_it():
    """Both products are taken each time."""
    cost = counted(bdhf.Blend(bdhf.PerLayer(), 0.5))

    assert cost.blocks == pytest.approx((FULL / GRADIENT,))
    assert cost.blended == pytest.approx(sum(LAYERS) / GRADIENT)
    assert cost.product == pytest.approx((FULL + sum(LAYERS)) / GRADIENT)


@pytest.mark.parametrize(
    ("partition", "rows"), [(bdhf.PerLayer(), 4), (bdhf.Blend(bdhf.PerLayer(), 0.5), 16)]
)
def test_the_factor_has_a_row_an_output(partition, rows):
    """Four outputs a sample; a blend has as many again for every block within it."""
    assert counted(partition).factor_rows == rows


def test_the_factor_of_draws_has_a_row_a_draw():
    """Fisher(samples=2) has two rows a sample; the Hessian has no factor."""
    assert counted(bdhf.PerLayer(), bdhf.Fisher(samples=2)).factor_rows == 2
    assert math.isnan(counted(bdhf.PerLayer(), bdhf.Hessian()).factor_rows)


def solving(case, curvature, partition, iterations, **parts):
    """An optimizer with a fixed number of iterations of its solver, and a batch."""
    model, batch = case()
    solver = bdhf.CG(max_iters=iterations, tol=0, residual_tol=0, **parts)
    damping = bdhf.Constant(10.0 if hessian_share(curvature) else 1e-3)  # else it is indefinite
    optimizer = bdhf.BlockHessianFree(
        model.double(), F.mse_loss, curvature=curvature, partition=partition, solver=solver,
        damping=damping,
    )  # fmt: skip
    return optimizer, tuple(part.double() for part in batch)


def images():
    """Two convolutions and a classifier, and a batch."""
    layers = [nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(8, 4)]
    return nn.Sequential(*layers), (torch.randn(SAMPLES, 1, 6, 6), torch.randn(SAMPLES, 4))


#: Case, curvature, partition, iterations.
UPDATES = [
    (mlp, bdhf.GGN(), bdhf.Full(), 3),
    (mlp, bdhf.GGN(), bdhf.Full(), 60),
    (mlp, bdhf.GGN(), bdhf.PerLayer(), 12),
    (mlp, bdhf.GGN(), bdhf.PerNeuron(), 5),
    (mlp, bdhf.Fisher(samples=2), bdhf.PerLayer(), 5),
    (mlp, bdhf.Hessian(), bdhf.PerLayer(), 5),
    (mlp, bdhf.Mixed(0.5), bdhf.PerLayer(), 5),
    (mlp, bdhf.GGN(), bdhf.Blend(bdhf.PerLayer(), 0.5), 5),
    (images, bdhf.GGN(), bdhf.PerLayer(), 5),
    (images, bdhf.EmpiricalFisher(), bdhf.Random(blocks=2), 5),
]


@pytest.mark.parametrize(("case", "curvature", "partition", "iterations"), UPDATES)
def test_an_estimate_is_what_a_warm_update_spends(case, curvature, partition, iterations):
    """Gradient, products, the first residual and a forward pass, as the update itself counts."""
    torch.manual_seed(0)
    optimizer, batch = solving(case, curvature, partition, iterations)
    optimizer.step(batch)

    spent = optimizer.step(batch)
    expected = estimate(optimizer, batch, gradient_batch=SAMPLES)

    assert set(spent.cg_iterations) == {iterations}
    assert expected == pytest.approx(spent.gradient_equivalents, rel=0.02)


@pytest.mark.parametrize(("case", "way"), [(mlp, None), (mlp, "sites"), (images, "sites")])
def test_an_estimate_knows_the_set_up_of_martens_diagonal(case, way):
    """One gradient, as the update itself counts."""
    torch.manual_seed(0)
    diagonal = bdhf.Martens(squares=way)
    optimizer, batch = solving(case, bdhf.GGN(), bdhf.Full(), 3, preconditioner=diagonal)
    optimizer.step(batch)

    spent = optimizer.step(batch)
    expected = estimate(optimizer, batch, gradient_batch=SAMPLES)

    assert spent.cg_iterations == (3,)
    assert expected == pytest.approx(spent.gradient_equivalents, rel=0.05)


def classifier():
    """Layers whose factors are larger than few, and a batch."""
    layers = nn.Linear(60, 40), nn.Tanh(), nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 10)
    return nn.Sequential(*layers), (torch.randn(64, 60), torch.arange(64) % 10)


def patches():
    """Two convolutions and a linear layer, and a batch."""
    layers = nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(128, 10))
    return model, (torch.randn(64, 2, 8, 8), torch.arange(64) % 10)


def with_sites(preconditioner):
    """Three iterations of CG with a preconditioner, after a warm start."""
    return bdhf.CG(max_iters=3, tol=0, preconditioner=preconditioner)


@pytest.mark.parametrize("case", [classifier, patches])
@pytest.mark.parametrize("partition", [bdhf.Full(), bdhf.PerNeuron()], ids=["full", "neurons"])
@pytest.mark.parametrize(
    ("solver", "most"),
    [
        (with_sites(bdhf.KFAC()), 1.05),
        (with_sites(bdhf.KFAC("exact")), 1.2),  # the last layer takes no column
        (with_sites(bdhf.EKFAC()), 1.3),
        (bdhf.Direction(), 1.05),
    ],
    ids=["kfac", "exact", "ekfac", "direction"],
)
def test_an_estimate_knows_the_cost_of_kronecker_products(case, partition, solver, most):
    """Set-up and steps of M⁻¹, as the update itself counts them; never less by more than 2 %."""
    torch.manual_seed(0)
    model, (x, y) = case()
    optimizer = bdhf.BlockHessianFree(
        model, F.cross_entropy, partition=partition, solver=solver, check=False, lr=0.1
    )
    optimizer.step((x, y))

    spent = optimizer.step((x, y)).gradient_equivalents
    expected = estimate(optimizer, (x[:4], y[:4]), gradient_batch=64)

    assert 0.98 * spent <= expected <= most * spent


def test_a_preconditioner_that_knows_no_cost_counts_two_gradients():
    """And none costs nothing."""

    class Own:
        def __call__(self, system):
            return None

    model, batch = mlp()
    costs = [
        estimate(
            bdhf.BlockHessianFree(model, F.mse_loss, solver=bdhf.CG(preconditioner=own)),
            batch, gradient_batch=SAMPLES,
        )
        for own in (bdhf.optim.NoPreconditioner(), Own())
    ]  # fmt: skip

    assert costs[1] - costs[0] == pytest.approx(2.0)


@pytest.mark.parametrize(
    "settings",
    [
        *(Settings(method=method) for method in ("auto", "propagate", "layer_io")),
        Settings(dtype=torch.bfloat16),
    ],
    ids=["auto", "propagate", "layer_io", "bfloat16"],
)
def test_estimates_that_share_their_work_count_what_each_counts_alone(settings):
    """Whatever came before: every number of every curvature, partition and method is the same."""
    model, batch = mlp()
    shared, objective = Shared(), Objective.of(model, F.mse_loss)
    solver = bdhf.CG()
    curvatures = (
        bdhf.GGN(), bdhf.Fisher(samples=2), bdhf.EmpiricalFisher(), bdhf.Hessian(), bdhf.Mixed(),
    )  # fmt: skip
    partitions = (
        bdhf.PerNeuron(), bdhf.Full(), bdhf.PerLayer(), bdhf.Random(blocks=3),
        bdhf.Blend(bdhf.PerLayer(), 0.5),
    )  # fmt: skip

    for curvature, partition in itertools.product(curvatures, partitions):
        blocks, flops = cut(layout_of(model), partition), Flops()
        product = linearise(
            objective, (batch,), curvature=curvature, blocks=blocks, flops=flops,
            settings=settings, products=solver.products(blocks),
        )  # fmt: skip
        estimate = estimated(
            objective, batch, shared,
            curvature=curvature, blocks=blocks, solver=solver, settings=settings,
        )  # fmt: skip
        assert str(estimate) == str(sweeps(product, flops, SAMPLES))  # NaN is NaN


def test_a_shared_forward_pass_is_made_once():
    """Two curvatures Jᵀ H J have one tape under all partitions, the Hessian one graph."""
    model, batch = mlp()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    shared, objective = Shared(), Objective.of(model, F.mse_loss)

    for curvature in (bdhf.GGN(), bdhf.Fisher(), bdhf.Hessian()):
        for partition in (bdhf.Full(), bdhf.PerLayer(), bdhf.PerNeuron()):
            estimated(
                objective, batch, shared, curvature=curvature, solver=bdhf.CG(),
                blocks=cut(layout_of(model), partition), settings=Settings(method="propagate"),
            )  # fmt: skip

    assert len(calls) == 2


def wide():
    """A layer of 200 neurons."""
    return nn.Sequential(nn.Linear(8, 200), nn.Tanh(), nn.Linear(200, 4))


def sweeping():
    """An optimizer that sends every neuron of it through the model and back."""
    return bdhf.BlockHessianFree(
        wide(), F.mse_loss, partition=bdhf.PerNeuron(), method="propagate"
    )  # fmt: skip


def test_neurons_of_a_wide_layer_are_warned_of():
    """The warning has the cost of its 204 sweeps, by hand 173 gradients, and what is cheaper."""
    batch = (torch.randn(5, 8), torch.randn(5, 4))
    optimizer = sweeping()

    with pytest.warns(CostWarning, match=naming(204, 173, "PerLayer", "Fisher")):
        optimizer.check(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(batch)  # once is enough


def test_an_update_warns_by_itself():
    """The first step checks, unless `check` was called."""
    batch = (torch.randn(5, 8), torch.randn(5, 4))
    optimizer = sweeping()

    with pytest.warns(CostWarning, match=naming(204)):
        optimizer.step(batch)


@pytest.mark.parametrize("method", ["propagate", "auto"])
@pytest.mark.parametrize("partition", [bdhf.PerLayer(), bdhf.Full(), bdhf.Random(blocks=20)])
def test_few_blocks_are_not_warned_of(partition, method):
    """Layers of any width, and twenty blocks of any kind, cost less."""
    batch = (torch.randn(5, 8), torch.randn(5, 4))
    optimizer = bdhf.BlockHessianFree(wide(), F.mse_loss, partition=partition, method=method)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.check(batch)


def test_neurons_that_one_sweep_takes_are_not_warned_of():
    """The cheaper method is taken before anybody is warned."""
    batch = (torch.randn(5, 8), torch.randn(5, 4))
    optimizer = bdhf.BlockHessianFree(wide(), F.mse_loss, partition=bdhf.PerNeuron())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.check(batch)


def test_the_check_is_not_charged_to_an_update():
    """The first update costs what it costs without a check."""
    costs = []
    for check in (True, False):
        torch.manual_seed(0)
        model, batch = mlp()
        optimizer = bdhf.BlockHessianFree(model, F.mse_loss, check=check)
        costs.append(optimizer.step(batch).gradient_equivalents)

    assert costs[0] == costs[1]

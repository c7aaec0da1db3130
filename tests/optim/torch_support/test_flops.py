"""FLOPs are those of the matrix products, whichever operator does them."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import flop_registry, register_flop_formula

import bdhf
from bdhf.optim import CG, BlockHessianFree, Full, Hessian
from bdhf.optim.forward.objective import Objective
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import linearise
from bdhf.optim.torch_support.flops import Flops, UncountedWarning

N, STEPS, IN, HIDDEN = 4, 6, 5, 8


def counted(work):
    """FLOPs of a piece of work."""
    flops = Flops()
    with flops.counting("work"):
        work()
    return flops.spent


def gradient(model, *inputs):
    """FLOPs of a forward pass, and of the gradient with respect to parameters and inputs."""
    inputs = [x.detach().requires_grad_() for x in inputs]

    def work():
        made = model(*inputs)
        outputs = made if isinstance(made, torch.Tensor) else made[0]
        loss = outputs.square().sum()
        return torch.autograd.grad(loss, [*model.parameters(), *inputs], allow_unused=True)

    return counted(work)


def weights(model):
    """Entries of the weight matrices."""
    return sum(p.numel() for p in model.parameters() if p.dim() == 2)


@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False}], ids=str
)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_cost_their_matrices_at_every_step(kind, options):
    """Forward once, back twice; but for the first state, which needs no gradient."""
    model = kind(IN, HIDDEN, batch_first=True, **options)
    expected = 3 * 2 * N * STEPS * weights(model)

    assert gradient(model, torch.randn(N, STEPS, IN)) == pytest.approx(expected, rel=0.07)


def test_bilinear_costs_its_two_contractions():
    """x₁ᵀ W x₂: one product with W and one with the vector, for the outputs and three gradients."""
    a, b, out = 5, 4, 3
    forward = 2 * N * out * (a * b + b)
    model = nn.Bilinear(a, b, out)

    assert counted(lambda: model(torch.randn(N, a), torch.randn(N, b))) == forward
    assert forward * 3 <= gradient(model, torch.randn(N, a), torch.randn(N, b)) <= forward * 4.5


def attention_flops(tokens, width):
    """Scores and mixed values of every sample."""
    return 2 * 2 * N * tokens * tokens * width


def test_fused_attention_costs_scores_and_values():
    """Torch's table has no formula for the CPU's kernel."""
    q = torch.randn(N, 2, STEPS, 4)

    assert counted(lambda: F.scaled_dot_product_attention(q, q, q)) == attention_flops(STEPS, 8)


@pytest.mark.parametrize("fused", [False, True])
def test_attention_modules_cost_their_projections_and_attention(fused):
    """Four projections and two batched products; three times that with the gradient."""
    model = nn.MultiheadAttention(8, 2, batch_first=True)
    expected = 3 * (2 * N * STEPS * 4 * 8 * 8 + attention_flops(STEPS, 8))

    class Self(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = model

        def forward(self, x):
            return self.attention(x, x, x, need_weights=not fused)[0]

    assert gradient(Self(), torch.randn(N, STEPS, 8)) == pytest.approx(expected, rel=0.05)


def test_sparse_products_cost_the_entries_that_are_there():
    """Not those of the dense matrix."""
    a, h = torch.eye(6).to_sparse(), torch.randn(6, 3)

    assert counted(lambda: torch.sparse.mm(a, h)) == 2 * 6 * 3


@pytest.mark.parametrize(
    ("work", "cubes"),
    [
        (torch.linalg.cholesky, 1 / 3),
        (torch.linalg.inv, 2),
        (lambda a: torch.linalg.solve(a, torch.ones(12, 12)), 2 / 3 + 2),
        (lambda a: torch.linalg.solve_triangular(a, a, upper=False), 1),
        (lambda a: torch.linalg.slogdet(a)[1], 2 / 3),
        (lambda a: torch.linalg.eigh(a)[0], 9),
        (torch.linalg.qr, 8 / 3),
    ],
)
def test_decompositions_cost_their_cubes(work, cubes):
    """The leading terms of Golub and Van Loan."""
    assert counted(lambda: work(torch.eye(12))) == pytest.approx(cubes * 12**3, rel=1e-3)


class Mean(nn.Module):
    """A layer on sequences, averaged over the steps, and a linear layer."""

    def __init__(self, layer, width):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 2)

    def forward(self, x):
        made = self.layer(x)
        return self.head((made if isinstance(made, torch.Tensor) else made[0]).mean(1))


MODELS = {
    "lstm": lambda: nn.LSTM(8, 8, batch_first=True),
    "gru": lambda: nn.GRU(8, 8, batch_first=True),
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_gradient_costs_the_same_beside_the_curvature_and_with_it(name):
    """An equal copy as the curvature batch costs one gradient more, and nothing else."""
    costs = []
    x, y = torch.randn(N, STEPS, 8), torch.randn(N, 2)
    for curvature_batch in (None, (x.clone(), y.clone())):
        torch.manual_seed(0)
        model = Mean(MODELS[name](), 8)
        optimizer = BlockHessianFree(
            model, F.mse_loss, partition=Full(), solver=CG(max_iters=3, tol=0), check=False
        )
        costs.append(optimizer.step((x, y), curvature_batch).gradient_equivalents)

    assert costs[1] == pytest.approx(costs[0] + 1, rel=1e-3)


def test_an_update_of_a_fused_lstm_costs_tens_of_gradients():
    """The unit is the gradient of the whole model, not of its head."""
    model = Mean(nn.LSTM(16, 32, batch_first=True), 32)
    optimizer = BlockHessianFree(
        model, F.mse_loss, partition=Full(), solver=CG(max_iters=10), check=False
    )

    info = optimizer.step((torch.randn(16, 12, 16), torch.randn(16, 2)))

    assert 5 < info.gradient_equivalents < 40


def test_bilinear_has_a_unit():
    """A model without other matrix products counts, where it gave NaN."""

    class Own(nn.Bilinear):
        def forward(self, x):
            return super().forward(x, x)

    optimizer = BlockHessianFree(Own(4, 4, 2), F.mse_loss, partition=Full(), check=False)

    info = optimizer.step((torch.randn(N, 4), torch.randn(N, 2)))

    assert math.isfinite(info.gradient_equivalents)


def test_an_operator_without_a_formula_is_named_once():
    """Where it reads a matrix of parameters, even as a view; not for a vector or data alone."""
    with torch.library._scoped_library("bdhf_test_flops", "DEF") as library:
        library.define("mix(Tensor a, Tensor b) -> Tensor")
        library.impl("mix", lambda a, b: a @ b, "CPU")
        mix = torch.ops.bdhf_test_flops.mix
        weight, x = nn.Parameter(torch.ones(3, 4)), torch.ones(3, 2)
        flops = Flops()
        with torch.no_grad():
            assert counted(lambda: mix(x.T, x)) == 0
            warns = pytest.warns(UncountedWarning, match=r"bdhf_test_flops\.mix.*\(4, 3\)")
            with warns, flops.counting("first"):
                mix(weight.t(), x)
            with flops.counting("second"):  # a warning would be an error
                mix(weight.t(), x)

    assert flops.spent == 0


def test_a_formula_that_is_registered_later_counts():
    """As the warning advises, after the operator was met without one."""
    with torch.library._scoped_library("bdhf_test_later", "DEF") as library:
        library.define("mix(Tensor a, Tensor b) -> Tensor")
        library.impl("mix", lambda a, b: a @ b, "CPU")
        mix, a = torch.ops.bdhf_test_later.mix, torch.ones(2, 2)
        before = counted(lambda: mix(a, a))
        try:
            register_flop_formula(mix)(lambda *shapes, **_: 16)
            after = counted(lambda: mix(a, a))
        finally:
            flop_registry.pop(mix, None)

    assert (before, after) == (0, 16)


class Curved(nn.Module):
    """The second derivative of a network in its inputs, by transforms one in the other."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, x):
        def scalar(point):
            return self.net(point)[0]

        hessians = torch.func.vmap(torch.func.hessian(scalar))(x)
        return hessians.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("build", "nested"), [(Curved, True), (lambda: nn.Linear(2, 1), False)], ids=["nested", "plain"]
)
def test_nothing_is_counted_on_the_way_back_through_nested_transforms(build, nested):
    """Every further piece counts as much as the linearisation, with a warning."""
    flops = Flops()
    objective = Objective.of(build(), F.mse_loss)
    blocks = cut(objective.layout, Full())
    batch = torch.randn(4, 2), torch.randn(4, 1)
    with torch.enable_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        linearise(objective, [batch], curvature=Hessian(), blocks=blocks, flops=flops)
    seen = [warning for warning in caught if warning.category is UncountedWarning]

    linearised = flops.spent
    with flops.counting("product"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)

    assert (flops.flat, len(seen)) == ((linearised, 1) if nested else (0, 0))
    assert product.shape == (2, 2)
    assert flops.spent - linearised == (linearised if nested else 2 * 2 * 2 * 2)


class Deeper(nn.Module):
    """One layer or all eight, by a flag."""

    def __init__(self):
        super().__init__()
        self.layers, self.whole = nn.Sequential(*(nn.Linear(16, 16) for _ in range(8))), False

    def forward(self, x):
        return self.layers(x) if self.whole else self.layers[0](x)


def test_a_flag_that_makes_a_model_deeper_makes_its_gradient_dearer():
    """The unit of cost is counted again: three products a layer, two for the first one."""
    model, batch = Deeper(), (torch.randn(32, 16), torch.randn(32, 16))
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, damping=bdhf.Constant(1.0))
    product = 2 * 32 * 16 * 16
    costs = []
    for model.whole in (False, True, False):
        optimizer.step(batch)
        expansion, _ = optimizer._linearise((batch,), (batch,))
        costs.append(expansion.gradient_cost)

    assert costs == [2 * product, (3 * 8 - 1) * product, 2 * product]

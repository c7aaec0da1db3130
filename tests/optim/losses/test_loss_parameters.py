"""Losses that depend on parameters: what a loss module holds is trained, the rest is refused."""

import copy
import math
import pickle
import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import CurvatureError, CurvatureWarning, ModelError, estimate
from bdhf.optim.curvature import OutputLoss
from bdhf.optim.forward.objective import Objective
from bdhf.optim.losses.hessians import Diagonal
from bdhf.optim.vectors.layout import layout_of
from tests.messages import naming

N = 8


def network():
    """A network of 43 parameters, with a batch of labels."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return model, (torch.randn(N, 4).double(), torch.randint(0, 3, (N,)))


class Temperature(nn.Module):
    """Cross-entropy of outputs by a learned temperature (CLIP), with learned class biases."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.head = nn.PReLU(3, init=0.4, dtype=torch.float64)

    def forward(self, z, y):
        return F.cross_entropy(self.head(z) * self.scale.exp(), y)


class Centres(nn.Module):
    """Cross-entropy and the distance to a learned centre of the class (Wen et al. 2016)."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Embedding(3, 3, dtype=torch.float64)

    def forward(self, z, y):
        return F.cross_entropy(z, y) + 0.1 * (z - self.centres(y)).square().sum(1).mean()


class Uncertainties(nn.Module):
    """Two tasks weighted by learned log-variances (Kendall et al. 2018)."""

    def __init__(self):
        super().__init__()
        self.log_variances = nn.Parameter(torch.tensor([0.2, -0.4], dtype=torch.float64))

    def forward(self, z, y):
        tasks = torch.stack([F.cross_entropy(z, y), z.square().mean()])
        return (tasks * (-self.log_variances).exp() + self.log_variances).sum()


class Tied(nn.Module):
    """A loss that penalises the model's last layer, which it holds, by a learned weight."""

    def __init__(self, model):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.layer = model[2]

    def forward(self, z, y):
        return F.cross_entropy(z, y) + self.weight.exp() * self.layer.weight.pow(4).sum()


class Collocation(nn.Module):
    """A loss that holds the model, and calls it at other points."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, z, y):
        points = torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4)
        return F.cross_entropy(z, y) + self.model(points).square().mean()


class Gaussian(nn.Module):
    """A user's own likelihood: squared errors by a learned precision of every output."""

    is_mean = True

    def __init__(self):
        super().__init__()
        self.log_precision = nn.Parameter(torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64))

    def forward(self, z, y):
        return ((z - y).square() * self.log_precision.exp() - self.log_precision).mean()

    def terms(self, z, y):
        return z.new_tensor(z.numel())

    def hessian(self, z, y):
        return Diagonal((2 * self.log_precision.exp()).expand_as(z))

    def draw(self, z, y, generator):
        noise = torch.empty_like(z).normal_(generator=generator)
        return z + noise * (2 * self.log_precision.exp()).rsqrt()

    def score(self, z, y, drawn):
        return 2 * self.log_precision.exp() * (z - drawn)


#: name -> the loss of a model; every kind of dependence that a loss module may have.
LOSSES = {
    "temperature": lambda model: Temperature(),
    "centres": lambda model: Centres(),
    "uncertainties": lambda model: Uncertainties(),
    "tied": Tied,
    "collocation": Collocation,
}
PARTITIONS = {
    "full": bdhf.Full(),
    "per_layer": bdhf.PerLayer(),
    "per_neuron": bdhf.PerNeuron(),
    "random": bdhf.Random(3),
    "blend": bdhf.Blend(bdhf.PerLayer(), alpha=0.3),
}


def together(model, loss_fn):
    """The parameters of both, each once."""
    every = dict.fromkeys([*model.parameters(), *loss_fn.parameters()])
    return [parameter for parameter in every if parameter.requires_grad]


def flat(tensors):
    """One vector."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def gradient_of(value, parameters):
    """∂(scalar)/∂θ by one plain backward pass, (P,)."""
    return torch.cat(
        [
            part.reshape(-1)
            for part in torch.autograd.grad(
                value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        ]
    )


def dense_gradient(model, loss_fn, batch):
    """∇L of model and loss, (P,)."""
    loss = loss_fn(model(batch[0]), batch[1])
    return gradient_of(loss, together(model, loss_fn))


def dense_ggn(model, loss_fn, batch):
    """Jᵀ H J, with the J of the outputs, (P, P)."""
    parameters, z = together(model, loss_fn), model(batch[0])
    jacobian = torch.stack([gradient_of(output, parameters) for output in z.reshape(-1)])
    hessian = torch.autograd.functional.hessian(
        lambda flat: loss_fn(flat.view(z.shape), batch[1]), z.detach().reshape(-1)
    )
    return jacobian.T @ hessian @ jacobian


def dense_hessian(model, loss_fn, batch):
    """∇²L of all parameters, (P, P)."""
    parameters = together(model, loss_fn)
    loss = loss_fn(model(batch[0]), batch[1]) + sum(0 * p.sum() for p in parameters)
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    entries = torch.cat([part.reshape(-1) for part in gradient])
    zero = sum(p.square().sum() * 0 for p in parameters)
    return torch.stack([gradient_of(entry + zero, parameters) for entry in entries])


def gradient(curvature):
    """The gradient of a linearisation, (P,) in the order of the parameters."""
    return curvature._blocks.scatter(curvature._product.gradient)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("curvature", [bdhf.GGN(), bdhf.Hessian(), bdhf.Mixed()], ids=repr)
def test_the_gradient_is_that_of_everything_that_is_held(name, curvature):
    """∇L has the parameters of the model, through the outputs and directly, then the loss's own."""
    model, batch = network()
    loss_fn = LOSSES[name](model)

    G = bdhf.block_curvature(model, loss_fn, batch, curvature=curvature)

    assert_close(gradient(G), dense_gradient(model, loss_fn, batch), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_another_batch_is_as_complete(name):
    """A separate curvature batch does not change the gradient."""
    model, (x, y) = network()
    loss_fn = LOSSES[name](model)
    before = together(model, loss_fn)
    g, start = dense_gradient(model, loss_fn, (x, y)), flat(before)
    optimizer = bdhf.BlockHessianFree(model, loss_fn, damping=bdhf.Constant(1e8), lr=1.0)

    info = optimizer.step((x, y), (x[:3], y[:3]))

    assert_close(info.grad_norm, float(g.norm()), rtol=1e-10, atol=0.0)
    assert_close(1e8 * (flat(before) - start), -g, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_ggn_is_that_through_the_outputs(name):
    """Jᵀ H J with the H of the loss at its parameters; 0 in the rows of what only the loss has."""
    model, batch = network()
    loss_fn = LOSSES[name](model)

    G = bdhf.block_curvature(model, loss_fn, batch).to_dense()

    assert_close(G, dense_ggn(model, loss_fn, batch), rtol=1e-9, atol=1e-12)
    assert G[43:].abs().sum() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_the_hessian_has_all_second_derivatives(name):
    """∇²L, those of the loss's own parameters and the mixed ones too."""
    model, batch = network()
    loss_fn = LOSSES[name](model)

    H = bdhf.block_curvature(model, loss_fn, batch, curvature=bdhf.Hessian())

    assert_close(H.to_dense(), dense_hessian(model, loss_fn, batch), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_mixture_has_its_share_of_the_second_derivatives(name):
    """α ∇²L + (1 - α) JᵀHJ, where only the first has rows of what only the loss has."""
    model, batch = network()
    loss_fn = LOSSES[name](model)
    hessian, ggn = (dense(model, loss_fn, batch) for dense in (dense_hessian, dense_ggn))

    G = bdhf.block_curvature(model, loss_fn, batch, curvature=bdhf.Mixed(0.3))

    assert_close(G.to_dense(), 0.3 * hessian + 0.7 * ggn, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("curvature", [bdhf.GGN(), bdhf.Hessian(), bdhf.Mixed()], ids=repr)
def test_the_check_knows_both(name, curvature):
    """The finite difference moves the parameters of both, and a tied one once."""
    model, batch = network()

    check = bdhf.block_curvature(model, LOSSES[name](model), batch, curvature=curvature).check()

    assert check.passed
    assert check.finite_difference < 1e-6


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("name", ["temperature", "tied"])
def test_a_step_solves_the_blocks_of_both(name, partition):
    """(G_bb + λI) d = -g in every block, where the loss's own have G = 0."""
    model, batch = network()
    loss_fn = LOSSES[name](model)
    blocks = bdhf.block_curvature(model, loss_fn, batch, partition=PARTITIONS[partition])
    G, g, before = (
        blocks.to_dense(),
        dense_gradient(model, loss_fn, batch),
        together(model, loss_fn),
    )
    start, d = flat(before), torch.zeros(len(g), dtype=g.dtype)
    for own in blocks.blocks:
        matrix = G[own[:, None], own] + 2.0 * torch.eye(len(own), dtype=g.dtype)
        d[own] = torch.linalg.solve(matrix, -g[own])
    optimizer = bdhf.BlockHessianFree(
        model, loss_fn, partition=PARTITIONS[partition], lr=0.5,
        damping=bdhf.Constant(2.0), solver=bdhf.CG(max_iters=200, tol=0.0, residual_tol=1e-12),
    )  # fmt: skip

    optimizer.step(batch)

    assert_close(flat(before) - start, 0.5 * d, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_training_lowers_the_loss_and_moves_every_parameter(name):
    """Ten updates with a damping that suits a gradient descent of the loss's parameters."""
    model, batch = network()
    loss_fn = LOSSES[name](model)
    start = [p.clone() for p in together(model, loss_fn)]
    optimizer = bdhf.BlockHessianFree(model, loss_fn, damping=bdhf.Constant(5.0))

    losses = [optimizer.step(batch).loss for _ in range(10)]

    assert losses[-1] < losses[0] - 0.02
    assert all(not torch.equal(p, q) for p, q in zip(together(model, loss_fn), start, strict=True))


def test_parameters_of_the_loss_are_named_behind_those_of_the_model():
    """They are a separate block, and patterns name them."""
    model, batch = network()
    loss_fn = Temperature()

    layers = bdhf.block_curvature(model, loss_fn, batch, partition=bdhf.PerLayer())
    groups = bdhf.Groups([["0.*", "loss.scale"], ["2.*", "loss.head.*"]])
    optimizer = bdhf.BlockHessianFree(model, loss_fn, partition=groups)

    assert [block.name for block in layers.describe()] == [
        "0",
        "2",
        "loss.scale",
        "loss.head.weight",
    ]
    assert optimizer.param_groups[0]["names"] == ("0.weight", "0.bias", "loss.scale")
    assert optimizer.param_groups[1]["params"][-1] is loss_fn.head.weight


@pytest.mark.parametrize("name", LOSSES)
def test_slots_are_the_parameters_that_are_trained(name):
    """Names and tensors cannot disagree: a slot's owner holds the tensor in its position."""
    model, _ = network()
    loss_fn = LOSSES[name](model)
    objective = Objective.of(model, loss_fn)

    owned = [
        slot.owners[-1][1].get_parameter(slot.name.split(".")[-1])
        for slot in objective.layout.slots
    ]

    assert list(map(id, owned)) == list(map(id, objective.parameters))
    assert list(map(id, owned)) == list(map(id, together(model, loss_fn)))


@pytest.mark.parametrize(
    ("names", "prefix"),
    [((), "loss"), (("loss",), "loss_fn"), (("loss", "loss_fn"), "loss_fn_")],
)
def test_names_of_the_loss_are_not_those_of_the_model(names, prefix):
    """A model with its own `loss`, trained or not, keeps that name."""
    model = nn.Module()
    model.head = nn.Linear(2, 2)
    for name in names:
        setattr(model, name, nn.CrossEntropyLoss())

    assert layout_of(model, Uncertainties()).slots[-1].name == f"{prefix}.log_variances"


def test_a_tensor_that_both_hold_is_the_models():
    """It is listed once, under the model's name, and a pattern on the loss's is an error."""
    model, batch = network()

    layout = layout_of(model, Tied(model))

    assert [slot.name for slot in layout.slots][-2:] == ["2.bias", "loss.weight"]
    assert layout.aliases == ("loss.layer.weight", "loss.layer.bias")
    with pytest.raises(ValueError, match="tied"):
        bdhf.block_curvature(
            model, Tied(model), batch, partition=bdhf.Groups([["*"], ["loss.layer.*"]])
        )


def test_a_frozen_loss_module_is_left_as_it_is():
    """Parameters that require no gradient are constants: the products are those of a function."""
    model, batch = network()
    loss_fn = Temperature().requires_grad_(False)

    frozen = bdhf.block_curvature(model, loss_fn, batch)
    plain = bdhf.block_curvature(model, lambda z, y: loss_fn(z, y), batch)

    assert frozen.shape == (43, 43)
    assert torch.equal(frozen.to_dense(), plain.to_dense())
    assert "loss.scale" not in frozen.explain()


def test_explain_says_how_the_parameters_of_the_loss_move():
    """By lr and damping of their group under the GGN, and by curvature under the Hessian."""
    model, batch = network()

    ggn = bdhf.block_curvature(model, Uncertainties(), batch).explain()
    hessian = bdhf.block_curvature(model, Uncertainties(), batch, curvature=bdhf.Hessian())

    assert re.search(naming("loss.log_variances", "lr", "damping", "param_group"), ggn)
    assert "loss.log_variances" in hessian.explain()
    assert "param_group" not in hessian.explain()


@pytest.mark.parametrize("method", ["propagate", "layer_io"])
@pytest.mark.parametrize("curvature", [bdhf.GGN(), bdhf.Fisher(2), bdhf.EmpiricalFisher()])
def test_a_likelihood_with_parameters_has_every_curvature(curvature, method):
    """Gradient and products are right by either method; micro-batches add up to the batch."""
    model, (x, _) = network()
    y = torch.randn(N, 3, dtype=torch.float64)
    loss_fn = Gaussian()
    make = partial(bdhf.block_curvature, curvature=curvature, method=method)

    whole, parts = (
        make(model, loss_fn, (x, y)),
        make(model, loss_fn, [(x[:3], y[:3]), (x[3:], y[3:])]),
    )

    assert whole.method == method
    for G in (whole, parts):
        assert_close(gradient(G), dense_gradient(model, loss_fn, (x, y)), rtol=1e-10, atol=1e-12)
    dense = whole.to_dense()
    assert dense[43:].abs().sum() == 0
    if curvature == bdhf.GGN():
        assert_close(dense, dense_ggn(model, loss_fn, (x, y)), rtol=1e-9, atol=1e-12)
        assert_close(parts.to_dense(), dense, rtol=1e-9, atol=1e-12)


def test_layer_io_knows_a_tensor_that_both_hold():
    """Its gradient through the sites is checked without what the loss reads directly."""

    class Penalised(Gaussian):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, z, y):
            return super().forward(z, y) + 3 * self.layer.weight.pow(4).sum()

    model, (x, _) = network()
    batch, loss_fn = (x, torch.randn(N, 3, dtype=torch.float64)), Penalised(model[2])

    G = bdhf.block_curvature(model, loss_fn, batch, method="layer_io")

    assert G.method == "layer_io"
    assert_close(gradient(G), dense_gradient(model, loss_fn, batch), rtol=1e-10, atol=1e-12)
    assert_close(G.to_dense(), dense_ggn(model, loss_fn, batch), rtol=1e-9, atol=1e-12)


SOLVERS = {
    "cholesky": bdhf.Cholesky(),
    "sample_space": bdhf.SampleSpace(),
    "saddle_free": bdhf.SaddleFree(200),
    "preconditioned": bdhf.CG(
        max_iters=200, tol=0.0, residual_tol=1e-12, preconditioner=bdhf.Martens()
    ),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ["temperature", "tied"])
def test_every_solver_takes_them(name, solver):
    """A direct or a preconditioned solve gives the step of plain CG."""
    steps = []
    for chosen in (bdhf.CG(max_iters=200, tol=0.0, residual_tol=1e-12), SOLVERS[solver]):
        model, batch = network()
        loss_fn = LOSSES[name](model)
        start = flat(together(model, loss_fn))
        bdhf.BlockHessianFree(
            model, loss_fn, solver=chosen, damping=bdhf.Constant(1.0)
        ).step(batch)  # fmt: skip
        steps.append(flat(together(model, loss_fn)) - start)

    assert_close(steps[1], steps[0], rtol=1e-5, atol=1e-8)


def test_costs_and_energies_are_those_of_the_model():
    """A block without products costs none, and lies outside of no block."""
    model, batch = network()
    loss_fn, plain = Uncertainties(), Uncertainties().requires_grad_(False)
    own, bare = (bdhf.BlockHessianFree(model, loss) for loss in (loss_fn, plain))
    sizes = {"gradient_batch": N}

    assert math.isclose(estimate(own, batch, **sizes), estimate(bare, batch, **sizes), rel_tol=0.05)
    assert 0 < own.off_block_energy(batch) < 1.5


def test_state_is_saved_copied_and_continued_bit_for_bit():
    """The parameters of the loss have their direction, damping and lr, as all others do."""
    model, batch = network()
    loss_fn = Temperature()
    optimizer = bdhf.BlockHessianFree(model, loss_fn, damping=bdhf.LevenbergMarquardt(2.0))
    optimizer.param_groups[-1]["lr"] = 0.125
    optimizer.step(batch)
    copied = copy.deepcopy((model, loss_fn, optimizer))
    pickled = pickle.loads(pickle.dumps((model, loss_fn, optimizer)))
    twin, twin_loss = copy.deepcopy((model, loss_fn))
    loaded = bdhf.BlockHessianFree(twin, twin_loss, damping=bdhf.LevenbergMarquardt(9.0))
    loaded.load_state_dict(optimizer.state_dict())

    infos = [optimizer.step(batch) for _ in range(2)]

    for net, loss, other in (copied, pickled, (twin, twin_loss, loaded)):
        assert [other.step(batch) for _ in range(2)] == infos
        assert torch.equal(flat(together(net, loss)), flat(together(model, loss_fn)))
        assert loss.scale is not loss_fn.scale


def test_a_group_of_the_loss_has_an_lr_and_a_damping_of_its_own():
    """With damping 1 / η and lr 1 its step is that of gradient descent at the rate η."""
    model, batch = network()
    loss_fn = Uncertainties()
    g = dense_gradient(model, loss_fn, batch)[43:]
    start = loss_fn.log_variances.detach().clone()
    optimizer = bdhf.BlockHessianFree(model, loss_fn)
    optimizer.param_groups[-1].update(lr=1.0, damping=1 / 0.05)

    optimizer.step(batch)

    assert_close(loss_fn.log_variances.detach(), start - 0.05 * g, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("partition", [bdhf.PerLayer(), bdhf.Full()], ids=["per_layer", "full"])
def test_a_long_step_of_the_loss_is_reported_before_the_first_update(partition):
    """Lr / damping is 500 by default; a damping as large as lr is no matter."""
    model, batch = network()
    long = bdhf.BlockHessianFree(model, Uncertainties(), partition=partition)
    short = bdhf.BlockHessianFree(
        model, Uncertainties(), partition=partition, damping=bdhf.Constant(0.5)
    )

    with pytest.warns(CurvatureWarning, match=naming("loss.log_variances", 500)):
        long.check(batch)
    short.check(batch)


def captured():
    """A model and a batch, with losses that read what they do not hold, and facts of the errors."""
    model, batch = network()
    weight, free = model[0].weight, torch.ones(3, dtype=torch.float64, requires_grad=True)

    class Bound:
        def loss(self, z, y):
            return F.cross_entropy(z * free, y)

    class Closure(nn.Module):
        def forward(self, z, y):
            return F.cross_entropy(z, y) + weight.square().sum()

    return model, batch, {
        "penalty": (
            lambda z, y: F.cross_entropy(z, y) + 10 * weight.square().sum(),
            naming("<lambda>", "'0.weight'", "bdhf.L2"),
        ),
        "partial": (
            partial(lambda z, y, w: F.cross_entropy(z @ w, y), w=model[2].weight[:, :3]),
            naming("partial", "'2.weight'"),
        ),
        "model": (
            lambda z, y: F.cross_entropy(z, y) + model(batch[0] + 1).square().mean(),
            naming("'0.bias'", "'0.weight'", "'2.bias'", 1, "forward"),
        ),
        "bound": (Bound().loss, naming("loss", "(3,)", "nn.Module")),
        "module": (Closure(), naming("Closure", "'0.weight'")),
        "both": (
            lambda z, y: F.cross_entropy(z * free, y) + weight.sum(),
            naming("'0.weight'", "(3,)"),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", captured()[2])
@pytest.mark.parametrize("curvature", [bdhf.GGN(), bdhf.Hessian()], ids=["ggn", "hessian"])
def test_a_loss_that_reads_what_it_does_not_hold_is_refused(name, curvature):
    """Its gradient would be left out of every update; the error names it, and the ways out."""
    model, batch, losses = captured()
    loss_fn, message = losses[name]
    before = flat(model.parameters())
    optimizer = bdhf.BlockHessianFree(model, loss_fn, curvature=curvature, check=False)

    with pytest.raises(ModelError, match=message):
        optimizer.step(batch)
    with pytest.raises(ModelError, match=message):
        bdhf.block_curvature(model, loss_fn, batch, curvature=curvature)

    assert torch.equal(flat(model.parameters()), before)


def test_it_is_looked_at_in_every_update():
    """A loss that begins to read parameters later is refused then."""
    model, batch = network()
    weight = 0.0
    optimizer = bdhf.BlockHessianFree(
        model, lambda z, y: F.cross_entropy(z, y) + weight * model[0].weight.square().sum()
        if weight else F.cross_entropy(z, y),
    )  # fmt: skip
    optimizer.step(batch)
    weight = 1.0

    with pytest.raises(ModelError, match=naming("'0.weight'")):
        optimizer.step(batch)


@pytest.mark.parametrize("curvature", [bdhf.GGN(), bdhf.Hessian()], ids=["ggn", "hessian"])
def test_targets_may_require_a_gradient(curvature):
    """Targets are constants, whatever they come from: a leaf, or a teacher's outputs."""
    model, (x, _) = network()
    teacher = nn.Linear(4, 3).double()
    plain = bdhf.block_curvature(
        model, F.mse_loss, (x, teacher(x).detach()), curvature=curvature
    ).to_dense()  # fmt: skip

    for targets in (teacher(x), teacher(x).detach().requires_grad_()):
        for loss_fn in (F.mse_loss, lambda z, y: (z - y).square().mean()):
            G = bdhf.block_curvature(model, loss_fn, (x, targets), curvature=curvature)
            assert_close(G.to_dense(), plain, rtol=1e-10, atol=1e-12)


def test_a_constant_that_is_frozen_is_no_parameter():
    """A perceptual loss by a network without gradients is a function of the outputs."""
    model, (x, y) = network()
    network_of_loss = nn.Linear(3, 2).double()

    def loss_fn(z, y):
        return network_of_loss(z).square().mean()

    with pytest.raises(ModelError, match="requires_grad_"):
        bdhf.block_curvature(model, loss_fn, (x, y))
    network_of_loss.requires_grad_(False)

    assert bdhf.block_curvature(model, loss_fn, (x, y)).check().passed


def test_a_curvature_that_gives_no_gradient_of_the_loss_is_refused():
    """A user's curvature must return the gradient of the loss itself; 0 would be wrong."""

    class Own:
        def expand_loss(self, loss_fn, outputs, targets, generator):
            made = bdhf.GGN().expand_loss(loss_fn, outputs, targets, generator)
            return OutputLoss(made.loss, made.gradient, made.hessian)

    model, batch = network()

    with pytest.raises(ModelError, match=naming("direct", "OutputLoss")):
        bdhf.block_curvature(model, Uncertainties(), batch, curvature=Own())
    assert bdhf.block_curvature(model, F.cross_entropy, batch, curvature=Own()).check().passed


def test_unfreezing_a_parameter_of_the_loss_is_refused():
    """It is in no block."""
    model, batch = network()
    loss_fn = Temperature()
    loss_fn.scale.requires_grad_(False)
    optimizer = bdhf.BlockHessianFree(model, loss_fn, damping=bdhf.Constant(1.0))
    optimizer.step(batch)
    loss_fn.scale.requires_grad_(True)

    with pytest.raises((ModelError, CurvatureError), match="requires_grad"):
        optimizer.step(batch)

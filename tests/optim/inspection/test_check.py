"""The self-check: what it finds, whom it names, and what it leaves as it was."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import bdhf
from bdhf.optim import CurvatureError
from tests.cases import Attention, ScaledDotProduct
from tests.messages import naming

PRECISIONS = [torch.float32, torch.float64]
CURVATURES = [bdhf.GGN(), bdhf.Fisher(), bdhf.EmpiricalFisher(), bdhf.Hessian()]

precisions = pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
curvatures = pytest.mark.parametrize("curvature", CURVATURES, ids=lambda c: type(c).__name__)


class WrongSquare(Function):
    """x², with a derivative that is a tenth too large."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        return 2.2 * ctx.saved_tensors[0] * grad


class OnceSquare(Function):
    """x², which may be differentiated once."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


class Wrong(nn.Linear):
    """A layer whose derivative is wrong."""

    def forward(self, x):
        return WrongSquare.apply(super().forward(x))


class Once(nn.Linear):
    """A layer that has no second derivative."""

    def forward(self, x):
        return OnceSquare.apply(super().forward(x))


class OnceDistance(torch.autograd.Function):
    """Distances without a second derivative, which torch has from 2.15 on."""

    @staticmethod
    def forward(ctx, x, centres):
        distances = torch.cdist(x, centres)
        ctx.save_for_backward(x, centres, distances)
        return distances

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, centres, distances = ctx.saved_tensors
        apart = (x[..., :, None, :] - centres) * (grad / distances)[..., None]
        return apart.sum(-2), -apart.reshape(-1, *centres.shape).sum(0)


class Distances(nn.Module):
    """Distances from four centres, which have no second derivative."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return OnceDistance.apply(x, self.centres)


class Noisy(nn.Module):
    """Dropout that is not visible from outside."""

    def forward(self, x):
        return F.dropout(x, 0.5, training=True)


def seeded(build, dtype=torch.float64, samples=6):
    """A model and a batch of three inputs and two outputs, from one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().to(dtype)
        return model, (torch.randn(samples, 3, dtype=dtype), torch.randn(samples, 2, dtype=dtype))


def with_middle(middle, dtype=torch.float64):
    """A net with a layer in the middle, of four inputs and four outputs."""
    return seeded(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), middle(), nn.Tanh(), nn.Linear(4, 2)),
        dtype,
    )


def check_of(model, batch, curvature=bdhf.GGN()):  # noqa: B008 - parts are frozen
    """What the check of a matrix finds."""
    return bdhf.block_curvature(
        model, F.mse_loss, batch, curvature=curvature, partition=bdhf.PerLayer()
    ).check()


@precisions
@curvatures
@pytest.mark.parametrize("activation", [nn.Tanh, nn.GELU, nn.ReLU, nn.SiLU])
def test_good_models_pass(activation, curvature, dtype):
    """Nothing is found where derivatives are right."""
    check = check_of(*with_middle(lambda: nn.Sequential(nn.Linear(4, 4), activation()), dtype))

    assert check.passed
    assert check.problem == ""
    assert check.repeatability == 0
    assert check.asymmetry < 0.1 * check.tolerance
    assert check.finite_difference < 0.1 * check.tolerance


@precisions
def test_the_hessian_of_weight_norm_is_found_to_be_wrong(dtype):
    """Pitfall 12: torch 2.13 gives it an asymmetric second derivative; the module is named."""
    model, batch = with_middle(lambda: weight_norm(nn.Linear(4, 4)), dtype)

    check = check_of(model, batch, bdhf.Hessian())

    assert not check.passed
    assert check.asymmetry > check.tolerance
    assert f"{check.asymmetry:.2g}" in check.problem
    assert "module '2.parametrizations.weight'" in check.problem
    assert "GGN" in check.problem  # the alternative


@precisions
def test_the_ggn_of_weight_norm_is_right(dtype):
    """It needs the first derivative alone."""
    check = check_of(*with_middle(lambda: weight_norm(nn.Linear(4, 4)), dtype))

    assert check.passed
    assert check.asymmetry < 1e-6
    assert check.finite_difference < 1e-6


@precisions
@pytest.mark.parametrize("curvature", CURVATURES[:3], ids=lambda c: type(c).__name__)
def test_a_wrong_derivative_is_found_by_the_finite_difference(curvature, dtype):
    """The matrix is symmetric nevertheless, so symmetry alone is not enough."""
    model, batch = with_middle(lambda: Wrong(4, 4), dtype)

    check = check_of(model, batch, curvature)

    assert not check.passed
    assert check.asymmetry < check.tolerance < check.finite_difference


@precisions
def test_a_wrong_derivative_is_pinned_to_its_module(dtype):
    """A layer behind it is right, and one that is wrong in itself is the suspect."""
    model, batch = seeded(
        lambda: nn.Sequential(Wrong(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)),
        dtype,
    )

    check = check_of(model, batch)

    assert "module '0' (Wrong)" in check.problem
    assert f"{check.finite_difference:.2g}" in check.problem


@curvatures
def test_a_module_with_hidden_randomness_is_named(curvature):
    """Its outputs change from one forward pass to the next; the caller's generator does not."""
    model, batch = with_middle(Noisy)
    G = bdhf.block_curvature(model, F.mse_loss, batch, curvature=curvature)
    before = torch.get_rng_state()

    check = G.check()

    assert torch.equal(torch.get_rng_state(), before)
    assert not check.passed
    assert check.repeatability > 0.1
    assert check.problem.startswith("module '2' (Noisy)")
    assert f"{check.repeatability:.2g}" in check.problem


class NoisyParent(nn.Module):
    """A forward pass that draws between two of its layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)

    def forward(self, x):
        return self.second(F.dropout(torch.tanh(self.first(x)), 0.5, training=True))


class NoisyInPlace(nn.Module):
    """Noise that is written into the input."""

    def forward(self, x):
        return x.add_(torch.randn_like(x))


@pytest.mark.parametrize(
    ("middle", "where"),
    [
        (NoisyParent, r"module '2' \(NoisyParent\).*module '2\.second' "),
        (lambda: nn.Sequential(NoisyParent()), r"module '2\.0' \(NoisyParent\)"),
        (
            lambda: nn.Sequential(nn.Linear(4, 4), NoisyInPlace()),
            r"module '2\.1' \(NoisyInPlace\) ",
        ),
    ],
)
def test_noise_is_pinned_to_where_it_is_drawn(middle, where):
    """A module with other inputs does not cause the other outputs."""
    assert re.match(where, check_of(*with_middle(middle)).problem)


def test_noise_of_the_model_itself_is_pinned_to_its_root():
    """No layer of it draws."""
    model, batch = seeded(lambda: NoisyRoot(3, 2))

    problem = check_of(model, batch).problem

    assert re.match(r"module at the root \(NoisyRoot\).*module 'last'", problem)


class NoisyRoot(nn.Module):
    """Dropout by the function, before its last layer."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.last = nn.Linear(n_in, n_out)

    def forward(self, x):
        return self.last(F.dropout(x, 0.5, training=True))


class Differentiates(nn.Module):
    """A derivative in the forward pass, as physics-informed nets and force fields take it."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, x):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.net(x).sum(), x, create_graph=True)[0][:, :2]


@curvatures
def test_a_model_that_differentiates_in_its_forward_passes(curvature):
    """The check runs it with gradients on."""
    check = check_of(*seeded(Differentiates), curvature)

    assert check.passed, check.problem
    assert check.finite_difference < check.tolerance


def nested(module):
    """A module inside of another one, behind a layer and an activation."""
    return with_middle(lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), module()))


@pytest.mark.parametrize("curvature", CURVATURES[:-1], ids=lambda c: type(c).__name__)
def test_a_module_without_a_second_derivative_serves_what_needs_the_first_only(curvature):
    """J v uses the tape of the forward pass, and the finite difference agrees."""
    assert check_of(*nested(TorchDistances), curvature).passed


class TorchDistances(nn.Module):
    """Distances from four centres by torch, which has their second derivative from 2.15 on."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return torch.cdist(x, self.centres)


@curvatures
@pytest.mark.parametrize("module", [Distances, lambda: Once(4, 4)], ids=["Distances", "Once"])
def test_a_module_that_may_be_differentiated_once_is_named(curvature, module):
    """A reverse sweep through it raises nothing, so it is refused before any product."""
    refuses(*nested(module), curvature, r"module '2\.2' \((Distances|Once)\)")


def refuses(model, batch, curvature, message):
    """Assert that the matrix of a model is refused."""
    with pytest.raises(CurvatureError, match=message):
        check_of(model, batch, curvature)


def test_a_matrix_that_is_lost_behind_a_module_is_not_a_matrix_of_zeros():
    """A last module without a second derivative would cut all products off, silently."""
    model, batch = seeded(lambda: nn.Sequential(nn.Linear(3, 2), Activation(OnceSquare)))

    with pytest.raises(CurvatureError, match=r"module '1' \(Activation\)"):
        check_of(model, batch)


class Activation(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


def test_a_module_in_place_is_not_blamed_for_another():
    """A ReLU in place can be differentiated twice, though not when it is given a leaf."""
    model, batch = with_middle(
        lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), Distances())
    )

    refuses(model, batch, bdhf.Hessian(), r"^module '2\.2' \(Distances\)")


@pytest.mark.parametrize("attention", [ScaledDotProduct, Attention])
def test_attention_is_not_blamed_for_another(attention):
    """Products run its plain kernel, which can be differentiated twice; so has the check to."""
    model, _ = seeded(
        lambda: nn.Sequential(attention(), nn.Linear(2, 4), Distances()), torch.float32
    )
    x = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0))

    refuses(model, (x, x[:, 0]), bdhf.Hessian(), r"^module '2' \(Distances\)")


def test_a_module_that_needs_keywords_is_not_in_the_way():
    """What a module is called with is what it is examined with."""

    class Scale(nn.Module):
        def forward(self, x, *, by):
            return by * x

    class Scaled(Distances):
        def __init__(self):
            super().__init__()
            self.scale = Scale()

        def forward(self, x):
            return super().forward(self.scale(x, by=2.0))

    refuses(*with_middle(Scaled), bdhf.Hessian(), r"^module '2' \(Scaled\)")


@pytest.mark.parametrize(
    ("middle", "curvature", "message"),
    [
        (
            lambda: weight_norm(nn.Linear(4, 4)),
            bdhf.Hessian(),
            r"Sequential cannot be right.*suspect: module '2.*check=False",
        ),
        (
            lambda: Wrong(4, 4),
            bdhf.GGN(),
            "Sequential cannot be right.*suspect: module.*check=False",
        ),
        (
            Noisy,
            bdhf.GGN(),
            naming("Sequential", "module '2' (Noisy)", "check=False"),
        ),
        (Distances, bdhf.Hessian(), naming("module '2' (Distances)")),
    ],
)
def test_the_optimizer_refuses_before_the_first_step(middle, curvature, message):
    """Nothing moves, no state is kept, and a second step is refused as the first was."""
    model, batch = with_middle(middle)
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, curvature=curvature)
    before = copy.deepcopy(model.state_dict())

    for _ in range(2):
        with pytest.raises(CurvatureError, match=message):
            optimizer.step(batch)

    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(optimizer.state_dict()["state"].values())


@pytest.mark.parametrize("middle", [lambda: weight_norm(nn.Linear(4, 4)), lambda: Wrong(4, 4)])
def test_without_its_check_the_optimizer_continues(middle):
    """`check=False` is at the user's own risk."""
    model, batch = with_middle(middle)
    before = copy.deepcopy(model.state_dict())

    info = bdhf.BlockHessianFree(
        model, F.mse_loss, curvature=bdhf.Hessian(), damping=bdhf.Constant(1.0), check=False
    ).step(batch)

    assert info.step_norm > 0
    assert any(not torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_optimizer_checks_once():
    """A step after the first runs the model as often as one without a check."""
    model, batch = with_middle(lambda: nn.Linear(4, 4))
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))

    counts = []
    for _ in range(3):
        calls.clear()
        optimizer.step(batch)
        counts.append(len(calls))

    assert counts[0] > counts[1] == counts[2] == 2


def test_the_check_before_the_first_step_leaves_the_callers_generator():
    """What the model draws in it is drawn from a copy of the caller's generator."""
    model, batch = with_middle(Noisy)
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    before = torch.get_rng_state()

    with pytest.raises(CurvatureError, match="Noisy"):
        optimizer.check(batch)

    assert torch.equal(torch.get_rng_state(), before)


@curvatures
@pytest.mark.parametrize(
    ("loss_fn", "targets"),
    [
        (F.mse_loss, torch.zeros(6, 2)),
        (F.binary_cross_entropy_with_logits, torch.zeros(6, 2)),
        (F.cross_entropy, torch.zeros(6, dtype=torch.long)),
    ],
    ids=["mse", "bce", "cross_entropy"],
)
def test_inputs_that_are_no_numbers_are_not_the_business_of_the_check(curvature, loss_fn, targets):
    """The update reports a NaN and changes nothing; nothing is raised."""
    model, (x, _) = with_middle(lambda: nn.Linear(4, 4), torch.float32)
    x = torch.full_like(x, torch.nan)
    before = copy.deepcopy(model.state_dict())

    check = bdhf.block_curvature(model, loss_fn, (x, targets), curvature=curvature).check()
    info = bdhf.BlockHessianFree(model, loss_fn, curvature=curvature).step((x, targets))

    assert check.passed
    assert set(info.stop) == {bdhf.optim.Stop.NONFINITE}
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

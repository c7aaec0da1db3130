"""Backward passes that are no derivatives: named, and not taken for wrong second derivatives."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import CurvatureError
from tests.cases import Case
from tests.messages import naming
from tests.oracles import dense_ggn, dense_hessian


class StraightThrough(nn.Module):
    """The sign, with the derivative of the identity."""

    def forward(self, x):
        return x + (torch.sign(x) - x).detach()


class Detached(nn.Module):
    """A product of which one factor is held fixed."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 4)

    def forward(self, x):
        return x * torch.sigmoid(self.gate(x)).detach()


class Equilibrium(nn.Module):
    """A fixed point, found without gradients, and one more step of the iteration with them."""

    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(4, 4)

    def forward(self, x):
        z = torch.zeros_like(x)
        with torch.no_grad():
            for _ in range(3):
                z = torch.tanh(self.cell(z) + x)
        return torch.tanh(self.cell(z) + x)


class Scaled(nn.Module):
    """Twice the gradient, by a hook on a value in between."""

    def forward(self, x):
        y = torch.tanh(x)
        if y.requires_grad:
            y.register_hook(lambda gradient: 2 * gradient)
        return y


class TwiceBackward(nn.Linear):
    """Twice the gradient of its input, by a hook of the module."""

    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out)
        self.register_full_backward_hook(lambda _module, inputs, _outputs: (2 * inputs[0],))


def net(middle, dtype=torch.float32):
    """A net with a module in the middle, and a batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), middle(), nn.Tanh(), nn.Linear(4, 2))
        return model.to(dtype), (torch.randn(6, 3, dtype=dtype), torch.randn(6, 2, dtype=dtype))


SURROGATES = [StraightThrough, Detached, Equilibrium, Scaled, lambda: TwiceBackward(4, 4)]
NAMES = ["StraightThrough", "Detached", "Equilibrium", "Scaled", "TwiceBackward"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("middle", "name"), list(zip(SURROGATES, NAMES, strict=True)), ids=NAMES)
def test_a_surrogate_gradient_is_called_one_and_its_module_named(middle, name, dtype):
    """The backward pass is another function's: torch's second derivative is not the cause."""
    model, batch = net(middle, dtype)

    problem = bdhf.block_curvature(model, F.mse_loss, batch).check().problem

    assert f"module '2' ({name})" in problem
    assert "PyTorch" not in problem
    assert "check=False" in problem


def test_a_hidden_surrogate_is_pinned_to_the_innermost_module():
    """Modules around it, and its neighbours, are not named."""
    model, batch = net(lambda: nn.Sequential(nn.Linear(4, 4), nn.Sequential(Detached())))

    problem = bdhf.block_curvature(model, F.mse_loss, batch).check().problem

    assert "module '2.1.0' (Detached)" in problem


def test_a_gradient_hook_of_a_parameter_is_named():
    """A copy of the model would lose it, so it is looked for by itself."""
    model, batch = net(lambda: nn.Linear(4, 4))
    model[2].weight.register_hook(lambda gradient: 2 * gradient)

    with pytest.raises(CurvatureError, match=naming("module '2' (Linear)", "weight")):
        bdhf.BlockHessianFree(model, F.mse_loss).step(batch)


def test_a_surrogate_under_the_hessian_is_called_one():
    """The gradient's finite difference disagrees because the gradient is not one."""
    model, batch = net(Detached, torch.float64)
    G = bdhf.block_curvature(model, F.mse_loss, batch, curvature=bdhf.Hessian())

    assert re.search(naming("module '2' (Detached)", "check=False"), G.check().problem)


def test_a_straight_through_model_trains_without_the_check():
    """`check=False` takes the surrogate's Jacobian, as its author means it."""
    model, batch = net(StraightThrough)
    optimizer = bdhf.BlockHessianFree(
        model, F.mse_loss, check=False, damping=bdhf.LevenbergMarquardt(1.0)
    )

    losses = [optimizer.step(batch).loss for _ in range(10)]

    assert losses[-1] < losses[0]


class Pooled(nn.Module):
    """The mean of the embeddings of all tokens, those that pad too, and a linear layer."""

    def __init__(self, **settings):
        super().__init__()
        self.tokens = nn.Embedding(7, 3, **settings)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.tokens(x).mean(1)))


class Bags(nn.Module):
    """An embedding that holds a row fixed, tied to the last layer, which does not."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(7, 3, padding_idx=2)
        self.out = nn.Linear(3, 7, bias=False)
        self.out.weight = self.tokens.weight  # tied, so its padding row has a gradient too

    def forward(self, x):
        return self.out(torch.tanh(self.tokens(x).mean(1)))


def padded(build, outputs, dtype=torch.float64):
    """A model of tokens, of which many pad; a case of the oracles."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().to(dtype)
        with torch.no_grad():
            model.tokens.weight[model.tokens.padding_idx] = torch.randn(3)  # not only at 0
        x = torch.randint(0, 7, (9, 4))
        x[:, 2:] = model.tokens.padding_idx
        return Case(model, F.mse_loss, (x, torch.randn(9, outputs, dtype=dtype)))


@pytest.mark.parametrize("curvature", [bdhf.GGN(), bdhf.Hessian()], ids=["GGN", "Hessian"])
@pytest.mark.parametrize(
    ("build", "outputs"),
    [(lambda: Pooled(padding_idx=0), 2), (lambda: Pooled(padding_idx=-1), 2), (Bags, 7)],
    ids=["first", "last", "tied"],
)
def test_a_padding_row_that_reaches_the_outputs_is_no_fault(build, outputs, curvature):
    """Torch defines its gradient as 0: products are those of a dense oracle, and pass."""
    case = padded(build, outputs)
    G = bdhf.block_curvature(case.model, case.loss_fn, case.batch, curvature=curvature)
    dense = dense_hessian if isinstance(curvature, bdhf.Hessian) else dense_ggn

    check = G.check()

    assert check.passed, check.problem
    assert check.finite_difference < check.tolerance
    assert_close(G.to_dense(), dense(case))


def test_a_model_with_padding_trains():
    """The padding row stays where it is, as under any optimizer of torch."""
    case = padded(lambda: Pooled(padding_idx=0), 2, torch.float32)
    row = case.model.tokens.weight[0].detach().clone()
    optimizer = bdhf.BlockHessianFree(case.model, F.mse_loss, damping=bdhf.Constant(0.1))

    losses = [optimizer.step(case.batch).loss for _ in range(5)]

    assert losses[-1] < losses[0]
    assert torch.equal(case.model.tokens.weight[0], row)


def test_padding_is_not_blamed_for_a_fault_elsewhere():
    """The rest of the model is still examined."""

    class Wrong(Pooled):
        def __init__(self):
            super().__init__(padding_idx=0)
            self.gate = StraightThrough()

        def forward(self, x):
            return self.head(self.gate(self.tokens(x).mean(1)))

    case = padded(Wrong, 2)

    problem = bdhf.block_curvature(case.model, case.loss_fn, case.batch).check().problem

    assert re.search(naming("module 'gate' (StraightThrough)", "check=False"), problem)


def test_gradients_scaled_by_frequency_are_named_with_a_way_out():
    """They are a rescaled gradient, not a derivative."""
    case = padded(lambda: Pooled(padding_idx=0, scale_grad_by_freq=True), 2)

    with pytest.raises(
        CurvatureError, match=naming("'tokens' (Embedding)", "scale_grad_by_freq=False")
    ):
        bdhf.block_curvature(case.model, case.loss_fn, case.batch)

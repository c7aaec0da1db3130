"""What the optimizer refuses, and what moves nothing."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bdhf
from bdhf.optim import Stop
from tests.optim.optimizers import regression


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing_and_says_so(value):
    """A NaN is met where it arises: the parameters stay finite, the info tells."""
    model, (x, y) = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step((x, y))
    before = [p.detach().clone() for p in model.parameters()]

    info = optimizer.step((x, torch.full_like(y, value)))

    assert not math.isfinite(info.loss)
    assert set(info.stop) == {Stop.NONFINITE}
    for p, q in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, q)


def test_a_gradient_that_is_not_finite_in_one_block_moves_no_block():
    """One poisoned layer does not let the others go on alone."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    def hook(gradient):
        return torch.full_like(gradient, math.nan)

    model[1].bias.register_hook(hook)
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    before = [p.detach().clone() for p in model.parameters()]

    info = optimizer.step(
        (torch.ones(3, 2), torch.ones(3, 2)), (torch.ones(1, 2), torch.ones(1, 2))
    )

    assert math.isfinite(info.loss)
    assert math.isnan(info.grad_norm)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_an_empty_curvature_batch_moves_nothing():
    """Without curvature there is no quadratic model to step by."""
    model, (x, y) = regression()
    before = [p.detach().clone() for p in model.parameters()]

    info = bdhf.BlockHessianFree(model, F.mse_loss).step((x, y), (x[:0], y[:0]))

    assert set(info.stop) == {Stop.NONFINITE}
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_parameters_frozen_later_are_refused():
    """A changed requires_grad would shift the vector under the blocks: it is an error."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    model[0].requires_grad_(False)

    with pytest.raises(ValueError, match="frozen since the blocks were made"):
        optimizer.step(batch)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.BatchNorm1d(8), r"'1' \(BatchNorm1d\) couples the samples"),
        (nn.RReLU(), r"'1' \(RReLU\) draws another slope"),
        (nn.Dropout(0.5), r"'1' \(Dropout\) drops other units"),
        (nn.MultiheadAttention(8, 2, dropout=0.1), r"'1' \(MultiheadAttention\) drops"),
    ],
)
def test_modules_that_are_no_function_of_each_sample_are_refused_in_training(module, message):
    """Their products would be silently wrong; in eval mode they are welcome."""
    model = nn.Sequential(nn.Linear(6, 8), module, nn.Linear(8, 2))
    _, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)

    with pytest.raises(ValueError, match=message):
        optimizer.step(batch)
    module.eval()
    if not isinstance(module, nn.MultiheadAttention):
        assert optimizer.step(batch).loss > 0


def test_dropout_with_rate_0_is_a_function():
    """A module that drops nothing is no reason to refuse."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.0), nn.Linear(8, 2))

    assert bdhf.BlockHessianFree(model, F.mse_loss).step(regression()[1]).loss > 0


@pytest.mark.parametrize("batches", [([1, 2],), ((1, 2), [1, 2])])
def test_a_batch_that_is_no_pair_is_refused(batches):
    """Both batches are checked, before anything is computed."""
    optimizer = bdhf.BlockHessianFree(nn.Linear(2, 1), F.mse_loss)

    with pytest.raises(TypeError, match=r"a batch is a tuple \(inputs, targets\), or a list"):
        optimizer.step(*batches)


@pytest.mark.parametrize("lr", [math.nan, math.inf, 0.0, -0.1])
def test_a_learning_rate_that_is_not_positive_is_an_error(lr):
    """The lr is checked where it is given."""
    with pytest.raises(ValueError, match="lr must be finite and above 0"):
        bdhf.BlockHessianFree(nn.Linear(2, 1), F.mse_loss, lr=lr)


@pytest.mark.parametrize("value", [-1e-3, math.nan, math.inf])
def test_a_damping_below_zero_is_an_error(value):
    """Constant damping is finite and at least 0."""
    with pytest.raises(ValueError, match="Constant damping"):
        bdhf.Constant(value)

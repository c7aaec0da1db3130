"""Micro-batches of a model that couples samples are not its batch."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bdhf
from bdhf.optim import ModelError
from tests.messages import naming
from tests.optim.optimizers import regression


class BatchStatistics(nn.Module):
    """Batch normalisation by the function, which no module shows."""

    def forward(self, x):
        return F.batch_norm(x, None, None, training=True)


class OverBatch(nn.Module):
    """Attention of every sample to all others."""

    def forward(self, x):
        return torch.softmax(x @ x.T, dim=1) @ x


class Graph(nn.Module):
    """Features of neighbours, in a graph of twelve nodes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("a", torch.eye(12).roll(1, 0) + torch.eye(12))

    def forward(self, x):
        return self.a @ x


class Cumulated(nn.Module):
    """Sums of all samples before each: the first half does not depend on the second."""

    def forward(self, x):
        return x.cumsum(0)


class TimeFirst(nn.Module):
    """A bidirectional layer over sequences with samples in dimension 1."""

    def __init__(self):
        super().__init__()
        self.layer = nn.RNN(3, 3, bidirectional=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.layer(x)[0])


#: The way out that the refusal of micro-batches names.
SPLIT = naming("tuple", "(inputs, targets)")


def net(middle):
    """A net with a module in the middle, a batch of twelve, and its halves."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), middle(), nn.Linear(4, 2))
        x, y = torch.randn(12, 3), torch.randn(12, 2)
    return model, (x, y), [(x[:6], y[:6]), (x[6:], y[6:])]


@pytest.mark.parametrize("middle", [BatchStatistics, OverBatch])
def test_micro_batches_of_a_coupled_model_are_refused(middle):
    """At the step of the first list; one batch is accepted, and so is check=False."""
    model, whole, halves = net(middle)
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)

    assert optimizer.step(whole).loss > 0
    for batches in ((halves,), (whole, halves)):
        with pytest.raises(ModelError, match=SPLIT):
            optimizer.step(*batches)
    assert bdhf.BlockHessianFree(model, F.mse_loss, check=False).step(halves).loss > 0


@pytest.mark.parametrize("middle", [BatchStatistics, OverBatch])
def test_the_check_of_a_matrix_reports_it_too(middle):
    """The matrix of two halves is not that of the batch."""
    model, whole, halves = net(middle)
    parts = bdhf.block_curvature(model, F.mse_loss, halves)
    undivided = bdhf.block_curvature(model, F.mse_loss, whole)

    assert (parts.to_dense() - undivided.to_dense()).norm() > 0.01 * undivided.to_dense().norm()
    assert re.search(SPLIT, parts.check().problem)
    assert undivided.check().passed


def test_a_model_that_takes_no_other_number_of_samples_is_coupled():
    """A graph has fixed nodes: twelve rows are one unit."""
    model, (x, y), _ = net(Graph)

    with pytest.raises(ModelError, match=SPLIT):
        bdhf.BlockHessianFree(model, F.mse_loss).step([(x, y), (x + 1, y)])


def test_micro_batches_of_other_models_are_accepted():
    """Samples in dimension 0, and in dimension 1 behind the time steps, even as many as those."""
    model, (x, y) = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    x_time, y_time = torch.randn(4, 8, 3), torch.randn(4, 8, 2)
    sequences = bdhf.BlockHessianFree(TimeFirst(), F.mse_loss)

    assert optimizer.step([(x[:50], y[:50]), (x[50:], y[50:])]).loss > 0
    for width in (4, 3):
        micro = [(x_time[:, :width], y_time[:, :width]), (x_time[:, 4:], y_time[:, 4:])]
        assert sequences.step(micro).loss > 0


@pytest.mark.parametrize("method", ["auto", "propagate", "layer_io"])
@pytest.mark.parametrize(
    "middle",
    [OverBatch, Cumulated, BatchStatistics, Graph],
)
@pytest.mark.parametrize("squares", [None, "sites"])
def test_a_preconditioner_of_samples_that_are_coupled_is_refused(middle, method, squares):
    """Gradients of single samples are of another function, so their squares have no meaning."""
    model, batch, _ = net(middle)
    solver = bdhf.CG(preconditioner=bdhf.Martens(squares=squares))

    with pytest.raises(ModelError, match=naming("Sequential", "preconditioner")):
        bdhf.BlockHessianFree(model, F.mse_loss, solver=solver, method=method).step(batch)
    assert bdhf.BlockHessianFree(model, F.mse_loss, method=method).step(batch).loss > 0


@pytest.mark.parametrize("method", ["auto", "propagate", "layer_io"])
@pytest.mark.parametrize("squares", [None, "sites"])
def test_a_preconditioner_sees_a_batch_that_couples_samples_later(method, squares):
    """Inputs of a first batch may leave them alone, as a graph without edges does."""
    model, (x, y), _ = net(OverBatch)
    model.forward = lambda x: x @ model[0].weight[:2].T + (x[:, :1] > 9) * model[0](x).sum()
    solver = bdhf.CG(preconditioner=bdhf.Martens(squares=squares))
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, solver=solver, method=method, check=False)
    assert optimizer.step((x, y)).loss > 0
    x = x.clone()
    x[3, 0] = 10.0

    with pytest.raises(ModelError, match=naming("Sequential", "preconditioner")):
        optimizer.step((x, y))


class Centred(nn.Module):
    """Samples less their mean, once a flag is set."""

    def __init__(self):
        super().__init__()
        self.centred = False

    def forward(self, x):
        return x - x.mean(0) if self.centred else x


def test_a_flag_that_couples_samples_later_is_seen():
    """Lists are looked at again where a flag of the model changed."""
    model, _, halves = net(Centred)
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    assert optimizer.step(halves).loss > 0

    model[1].centred = True

    with pytest.raises(ModelError, match=SPLIT):
        optimizer.step(halves)

"""Buffers that forward passes change get a warning, and the check restores them."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bdhf
from bdhf.optim import BufferWarning
from bdhf.optim.forward.buffers import buffers_kept
from tests.messages import naming


class Counter(nn.Module):
    """Counts its forward passes, in place."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.passes += 1
        return x


class Average(nn.Module):
    """A running average of its inputs, another tensor every time."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x


class Cache(nn.Module):
    """A table that the first pass fills, and every pass writes again with the same numbers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", None)
        self.register_buffer("sizes", torch.zeros(4))

    def forward(self, x):
        if self.table is None:
            self.table = torch.linspace(0, 1, 4)
        self.sizes.copy_(torch.full((4,), float(len(x))))
        return x + self.table + self.sizes


def case(middle):
    """A model with a module in the middle, and a batch."""
    model = nn.Sequential(nn.Linear(3, 4), middle, nn.Linear(4, 2))
    return model, (torch.randn(8, 3), torch.randn(8, 2))


@pytest.mark.parametrize(("middle", "name"), [(Counter, "1.passes"), (Average, "1.mean")])
def test_buffers_that_every_pass_moves_are_named_once(middle, name):
    """Before the first update, and by the check of a matrix; the products are right."""
    model, batch = case(middle())
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)

    with pytest.warns(BufferWarning, match=naming(f"'{name}'", "eval")):
        optimizer.step(batch)
    optimizer.step(batch)
    G = bdhf.block_curvature(model, F.mse_loss, batch)
    with pytest.warns(BufferWarning, match=name):
        assert G.check().passed


@pytest.mark.parametrize("middle", [Counter, Average, Cache])
def test_a_check_leaves_buffers_as_they_were(middle):
    """The same tensors with the same numbers, however many passes it makes."""
    model, batch = case(middle())
    G = bdhf.block_curvature(model, F.mse_loss, batch)
    before = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BufferWarning)
        G.check()

    assert list(before) == [name for name, _ in model.named_buffers()]
    for name, buffer in model.named_buffers():
        assert buffer is before[name][0]
        assert torch.equal(buffer, before[name][1])


def test_a_cache_that_is_filled_once_is_no_reason_to_warn():
    """Nor is a buffer that every pass writes the same numbers to."""
    model, batch = case(Cache())

    assert bdhf.BlockHessianFree(model, F.mse_loss).step(batch).loss > 0


def test_values_that_are_no_numbers_have_not_moved():
    """NaN is not another NaN, and a sparse buffer is not compared."""
    model = Counter()
    model.register_buffer("nan", torch.tensor([float("nan"), 1.0]))
    model.register_buffer("sparse", torch.eye(2).to_sparse())

    with buffers_kept(model) as moved:
        model.nan.copy_(model.nan.clone())
        assert moved() == []
        model.nan[1] = 2.0
        assert moved() == ["nan"]
    assert model.nan[1] == 1.0

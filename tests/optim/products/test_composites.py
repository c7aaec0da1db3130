"""Attention and recurrent layers of torch, computed so that their affine functions are sites."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf


def normal(*shape, seed=0):
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Outputs(nn.Module):
    """A module called in some way; the mean over the steps of its first result, per sample."""

    def __init__(self, module, call, steps=1):
        super().__init__()
        self.module, self.call, self.steps = module, call, steps

    def forward(self, x):
        out = self.call(self.module, x)
        return (out[0] if isinstance(out, tuple) else out).mean(self.steps)


def recurrent(kind, **options):
    """A recurrent layer on (N, T, 3)."""
    layer = kind(3, 4, batch_first=True, **options)
    return Outputs(layer, lambda module, x: module(x))


def self_attention(**options):
    """Attention of (N, T, 4) to itself."""
    call_options = options.pop("call", {})
    layer = nn.MultiheadAttention(4, 2, batch_first=True, **options)
    return Outputs(layer, lambda module, x: module(x, x, x, **call_options))


CAUSAL = torch.triu(torch.ones(5, 5, dtype=torch.bool), diagonal=1)

#: Layers, with the last size of their inputs (N, 5, size).
LAYERS = {
    "lstm": (lambda: recurrent(nn.LSTM, num_layers=2), 3),
    "lstm in two directions": (lambda: recurrent(nn.LSTM, num_layers=2, bidirectional=True), 3),
    "projected lstm": (lambda: recurrent(nn.LSTM, num_layers=2, proj_size=2), 3),
    "lstm without biases": (lambda: recurrent(nn.LSTM, bias=False), 3),
    "steps first": (
        lambda: Outputs(nn.LSTM(3, 4), lambda module, x: module(x.transpose(0, 1)), steps=0), 3,
    ),
    "last state": (
        lambda: Outputs(nn.LSTM(3, 4, 2), lambda m, x: m(x.transpose(0, 1))[1], steps=0), 3,
    ),
    "started": (
        lambda: Outputs(
            nn.GRU(3, 4, batch_first=True),
            lambda module, x: module(x, x[None, :, 0, :1].expand(1, -1, 4).contiguous()),
        ), 3,
    ),
    "gru": (lambda: recurrent(nn.GRU, num_layers=2, bidirectional=True), 3),
    "rnn": (lambda: recurrent(nn.RNN), 3),
    "relu rnn": (lambda: recurrent(nn.RNN, nonlinearity="relu"), 3),
    "attention": (self_attention, 4),
    "attention without weights": (lambda: self_attention(call={"need_weights": False}), 4),
    "attention without biases": (lambda: self_attention(bias=False), 4),
    "causal attention": (
        lambda: self_attention(call={"attn_mask": CAUSAL, "need_weights": False}), 4,
    ),
    "added keys": (lambda: self_attention(add_bias_kv=True, add_zero_attn=True), 4),
    "steps first attention": (
        lambda: Outputs(
            nn.MultiheadAttention(4, 2),
            lambda module, x: module(*[x.transpose(0, 1)] * 3), steps=0,
        ), 4,
    ),
    "other keys": (
        lambda: Outputs(
            nn.MultiheadAttention(4, 2, batch_first=True),
            lambda module, x: module(x[:, :2], x, x),
        ), 4,
    ),
    "keys of other sizes": (
        lambda: Outputs(
            nn.MultiheadAttention(4, 2, kdim=2, vdim=3, batch_first=True),
            lambda module, x: module(x, x[..., :2], x[..., 1:]),
        ), 4,
    ),
    "encoder": (
        lambda: Outputs(
            nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True),
            lambda module, x: module(x),
        ), 4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("samples", [3, 5])  # 5 is the number of steps too
def test_the_pass_through_composites_is_the_model(name, samples):
    """The outputs are those of the model, and the gradients through the sites those of autograd."""
    make, size = LAYERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().double()
    x = normal(samples, 5, size)
    G = bdhf.block_curvature(model, F.mse_loss, (x, torch.zeros_like(model(x))))

    samples_of_sites = G._product.site_samples()

    assert_close(samples_of_sites.records[0].outputs, model(x).detach())
    extra = {name for name, _ in model.named_parameters() if "bias_k" in name or "bias_v" in name}
    assert set(samples_of_sites.uncovered) == extra


@pytest.mark.parametrize("name", LAYERS)
def test_dimension_0_of_every_site_counts_the_samples(name):
    """The cotangents of a site are zero for the samples whose outputs have a cotangent of zero."""
    make, size = LAYERS[name]
    model = make().double()
    x = normal(5, 5, size)
    G = bdhf.block_curvature(model, F.mse_loss, (x, torch.zeros_like(model(x))))
    record = G._product.site_samples().records[0]
    columns = torch.zeros(5, *record.outputs.shape, dtype=torch.float64)
    columns[torch.arange(5), torch.arange(5)] = 1.0

    for s in record.cotangents(columns):
        outside = s.clone()
        outside[torch.arange(5), torch.arange(5)] = 0
        assert not outside.any()
        assert s.any()


def test_dropout_in_evaluation_mode_hides_no_site():
    """A layer with dropout between its layers is covered where dropout does nothing."""
    layer = nn.LSTM(3, 4, 2, dropout=0.5, batch_first=True).double()
    model = Outputs(layer, lambda module, x: module(x)).eval()
    x = normal(3, 5, 3)
    G = bdhf.block_curvature(model, F.mse_loss, (x, torch.zeros_like(model(x))))

    assert not G._product.site_samples().uncovered

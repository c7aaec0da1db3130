"""Initialisations: from the generator alone, matrix by matrix."""

import math

import pytest
import torch
from torch import nn

from bdhf.nn import Glorot, PeepholeLSTM, Sparse
from tests.messages import naming


class Positions(nn.Module):
    """A parameter outside of the layers of torch."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.empty(50, 40))


MODULES = {
    "linear": lambda: nn.Linear(30, 20),
    "conv": lambda: nn.Conv2d(4, 6, 3),
    "grouped_conv": lambda: nn.Conv1d(4, 6, 5, groups=2),
    "transposed_conv": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
    "lstm": lambda: nn.LSTM(20, 8, 2, bidirectional=True, proj_size=4),
    "gru": lambda: nn.GRU(20, 8, bias=False),
    "peephole_lstm": lambda: PeepholeLSTM(20, 8, 2),
    "attention": lambda: nn.MultiheadAttention(8, 2, kdim=5, vdim=6, add_bias_kv=True),
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, 16),
    "batch_norm": lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)),
    "embedding": lambda: nn.Sequential(nn.Embedding(50, 40), nn.LayerNorm(40), nn.RMSNorm(40)),
    "positions": Positions,
}
INITIALISATIONS = {"glorot": Glorot(), "sparse": Sparse(connections=3, scale=2.0)}


def initialised(module, init, seed=0):
    """The module, drawn by an initialisation."""
    init(module, torch.Generator().manual_seed(seed))
    return module


@pytest.mark.parametrize("init", INITIALISATIONS.values(), ids=INITIALISATIONS)
@pytest.mark.parametrize("build", MODULES.values(), ids=MODULES)
def test_every_parameter_comes_from_the_generator(build, init):
    """Models built under different global seeds are equal, and draw nothing globally."""
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = build()
        for parameter in model.parameters():
            nn.init.constant_(parameter, math.nan)
        state = torch.get_rng_state()
        models.append(initialised(model, init))
        assert torch.equal(torch.get_rng_state(), state)

    for first, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(first, other)
        assert first.isfinite().all()


@pytest.mark.parametrize("init", INITIALISATIONS.values(), ids=INITIALISATIONS)
@pytest.mark.parametrize("build", MODULES.values(), ids=MODULES)
def test_biases_are_zero_scales_one_and_weights_differ_by_seed(build, init):
    """Other parameters are constant, 1 for forget gates; every weight is drawn."""
    model, other = initialised(build(), init), initialised(build(), init, seed=1)

    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        if "bias_ih" in name and "LSTM" in type(owner).__name__:
            assert parameter.view(4, -1).sum(1).tolist() == [0, owner.hidden_size, 0, 0]
            assert set(parameter.tolist()) == {0.0, 1.0}
        elif "bias" in name or "peephole" in name:
            assert not parameter.any()
        elif "Norm" in type(owner).__name__:
            assert torch.equal(parameter, torch.ones_like(parameter))
        else:
            assert not torch.equal(parameter, other.get_parameter(name))


@pytest.mark.parametrize("init", INITIALISATIONS.values(), ids=INITIALISATIONS)
@pytest.mark.parametrize("name", ["embedding", "positions"])
def test_vectors_that_are_looked_up_are_normal(name, init):
    """Their standard deviation is 0.02, for any number of vectors."""
    table = next(initialised(MODULES[name](), init).parameters()).detach()

    assert float(table.std()) == pytest.approx(0.02, rel=0.05)
    assert table.abs().max() > 0.05


def test_glorot_draws_linear_layers_as_torch_does():
    """Bit for bit xavier_uniform_, weight after weight in the order of the modules."""
    model = initialised(nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)), Glorot())
    generator = torch.Generator().manual_seed(0)

    for layer in (model[0], model[2]):
        expected = nn.init.xavier_uniform_(torch.empty_like(layer.weight), generator=generator)
        assert torch.equal(layer.weight, expected)


@pytest.mark.parametrize(
    ("build", "name", "fans"),
    [
        (lambda: nn.Conv2d(4, 6, 3), "weight", (4 * 9, 6 * 9)),
        (lambda: nn.Conv2d(40, 60, 3, groups=10), "weight", (4 * 9, 6 * 9)),
        (lambda: nn.ConvTranspose2d(40, 60, 3, groups=10), "weight", (4 * 9, 6 * 9)),
        (lambda: nn.LSTM(40, 20), "weight_ih_l0", (40, 20)),
        (lambda: nn.LSTM(40, 20, proj_size=10), "weight_hh_l0", (10, 20)),
        (lambda: nn.LSTM(40, 20, proj_size=10), "weight_hr_l0", (20, 10)),
        (lambda: nn.GRU(40, 20, 2), "weight_ih_l1", (20, 20)),
        (lambda: PeepholeLSTM(40, 20), "weight_ih_l0", (40, 20)),
        (lambda: nn.MultiheadAttention(20, 2), "in_proj_weight", (20, 20)),
        (lambda: nn.MultiheadAttention(20, 2, kdim=40), "k_proj_weight", (40, 20)),
    ],
)
def test_glorot_reaches_to_its_bound(build, name, fans):
    """√(6 / (n_in + n_out)) with the fans of one gate, one projection, one group."""
    weight = initialised(build(), Glorot()).get_parameter(name)
    bound = math.sqrt(6 / sum(fans))

    assert 0.95 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("build", "name", "by_unit", "inputs"),
    [
        (lambda: nn.Linear(30, 20), "weight", lambda w: w, 30),
        (lambda: nn.Linear(4, 20), "weight", lambda w: w, 4),
        (lambda: nn.Conv2d(4, 6, 3), "weight", lambda w: w.flatten(1), 36),
        (lambda: nn.Conv2d(4, 6, 1, groups=2), "weight", lambda w: w.flatten(1), 2),
        (lambda: nn.ConvTranspose2d(4, 6, 3), "weight", lambda w: w.transpose(0, 1).flatten(1), 36),
        (lambda: PeepholeLSTM(30, 20), "weight_hh_l0", lambda w: w, 20),
        (lambda: nn.MultiheadAttention(20, 2), "in_proj_weight", lambda w: w, 20),
    ],
)
def test_sparse_gives_every_unit_its_connections(build, name, by_unit, inputs):
    """15 nonzero weights for every unit, or as many as it has inputs."""
    weight = by_unit(initialised(build(), Sparse()).get_parameter(name))

    assert weight.shape[1] == inputs
    assert (weight.count_nonzero(1) == min(15, inputs)).all()


def test_sparse_weights_are_normal_and_spread_over_all_inputs():
    """N(0, scale²) on inputs chosen with equal probability."""
    weight = initialised(nn.Linear(40, 4000), Sparse(connections=10, scale=3.0)).weight.detach()

    assert float(weight[weight != 0].std()) == pytest.approx(3.0, rel=0.02)
    assert float(weight.mean()) == pytest.approx(0.0, abs=0.02)
    used = weight.count_nonzero(0) / 4000
    assert used.min() > 0.22
    assert used.max() < 0.28


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"connections": 0}, naming("connections", 1, 0)),
        ({"scale": 0.0}, naming("scale", 0, 0.0)),
        ({"scale": math.inf}, naming("scale", 0, "inf")),
    ],
)
def test_a_sparse_initialisation_that_draws_nothing_is_refused(arguments, message):
    """The constructor checks its arguments."""
    with pytest.raises(ValueError, match=message):
        Sparse(**arguments)

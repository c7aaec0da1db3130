"""The bottleneck: the same products by a matrix a sample at the code, where that spares work."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim.products import Workspace
from bdhf.optim.products.propagate import bottleneck
from bdhf.optim.products.propagate.bottleneck import BOTTLENECK_COLUMNS
from bdhf.optim.products.propagate.propagate import Propagate
from bdhf.optim.vectors.layout import layout_of
from tests.cases import Case, build
from tests.messages import naming
from tests.optim.tapes import Reversal, asked, recorded
from tests.oracles import cut, dense_ggn

SAMPLES, INPUTS, HIDDEN, CODE = 6, 12, 20, 2
OUTPUT_BYTES = SAMPLES * INPUTS * 8  # of z, in float64
LEAST = (1 + 2 * BOTTLENECK_COLUMNS) * OUTPUT_BYTES  # that a bottleneck takes

LOSSES = {
    "mse": (F.mse_loss, lambda: torch.randn(SAMPLES, INPUTS)),
    "cross_entropy": (F.cross_entropy, lambda: torch.randint(0, INPUTS, (SAMPLES,))),
    "bce": (F.binary_cross_entropy_with_logits, lambda: torch.rand(SAMPLES, INPUTS)),
}
CURVATURES = {"ggn": bdhf.GGN(), "fisher": bdhf.Fisher(samples=2)}
PARTITIONS = {
    "per_layer": bdhf.PerLayer(),
    "groups": bdhf.Groups([["encoder.*"], ["decoder.*"]]),
    "per_neuron": bdhf.PerNeuron(),
}

losses = pytest.mark.parametrize("loss", LOSSES)


class Autoencoder(nn.Module):
    """An encoder and a decoder, what happens between them, and perhaps a way around the code."""

    def __init__(self, hidden=HIDDEN, code=CODE, between=lambda c: c, skip=False):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(INPUTS, hidden), nn.Tanh(), nn.Linear(hidden, code)
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(code, hidden), nn.Tanh(), nn.Linear(hidden, INPUTS)
        )  # fmt: skip
        self.between, self.skip = between, skip

    def forward(self, x):
        z = self.decoder(self.between(self.encoder(x)))
        return z + self.encoder[0](x)[:, :INPUTS] if self.skip else z


def autoencoder(loss="mse", **arguments):
    """A case in float64."""
    torch.manual_seed(0)
    loss_fn, targets = LOSSES[loss]
    y = targets()
    y = y.double() if y.is_floating_point() else y
    return Case(
        Autoencoder(**arguments).double(), loss_fn, (torch.randn(SAMPLES, INPUTS).double(), y)
    )


def propagated(case, partition="per_layer", curvature="ggn", workspace=None, **settings):
    """The linearisation of a case, and its blocks."""
    request = asked(case, PARTITIONS[partition], CURVATURES[curvature], **settings)
    if workspace is not None:
        request = replace(request, workspace=workspace)
    return Propagate(request, request.curvature), request.blocks


def multiplied(case, *arguments, **settings):
    """A product with a fixed vector, and whether it used a bottleneck."""
    made, blocks = propagated(case, *arguments, **settings)
    v = torch.randn(blocks.layout.size, generator=torch.Generator().manual_seed(1)).double()
    return made.product(blocks, v, range(len(blocks.rows))), "bottleneck" in made.why


@losses
def test_the_matrix_at_the_bottleneck_is_dense_sample_by_sample(loss):
    """K_n = (∂z_n/∂c_n)ᵀ H_n (∂z_n/∂c_n), with H the Hessian of the loss in the outputs."""
    case = autoencoder(loss)
    made, _ = propagated(case)
    c = case.model.encoder(case.batch[0]).detach()
    z = case.model.decoder(c).detach()
    full = hessian(lambda outputs: case.loss_fn(outputs, case.batch[1]), z)

    assert_close(made._linearised.c, c)
    for n, k in enumerate(made._linearised.hessian.k):
        j = jacobian(case.model.decoder, c[n])
        assert_close(k, j.T @ full[n, :, n] @ j, rtol=1e-10, atol=1e-12)


@losses
@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_products_are_the_same_with_and_without_the_bottleneck(loss, curvature, partition):
    """All blocks, to 1e-10."""
    case = autoencoder(loss)
    narrow, by_bottleneck = multiplied(case, partition, curvature)
    plain, without = multiplied(case, partition, curvature, max_bytes=1)

    assert by_bottleneck
    assert not without
    assert_close(narrow, plain, rtol=0, atol=1e-10 * float(plain.norm()))


@pytest.mark.parametrize("partition", PARTITIONS)
def test_the_bottleneck_is_the_code_and_serves_the_blocks_before_it(partition):
    """Its width is that of the code; it serves all blocks but those of the decoder."""
    case = autoencoder()
    made, blocks = propagated(case, partition)
    names = [slot.name for slot in layout_of(case.model).slots]
    before = {
        block.slots for block in blocks.rows if names[block.slots[0]].startswith("encoder")
    }  # fmt: skip

    assert made._linearised.bottleneck.width == CODE
    assert made._linearised.bottleneck.blocks == before
    assert re.search(naming(len(before), "bottleneck", CODE), made.why)


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ({"skip": True}, {"partition": "groups"}),
        ({"hidden": 64, "code": 60}, {}),
        ({}, {"products": 1}),
        ({}, {"max_bytes": LEAST - 1}),
    ],
    ids=["skip", "wide", "few_products", "little_memory"],
)
def test_there_is_no_bottleneck_where_it_spares_nothing(arguments, settings):
    """A way past the code, a code that is not narrow, few products, too little memory."""
    case = autoencoder(**arguments)
    made, _ = propagated(case, **settings)

    assert made._linearised is None
    assert "bottleneck" not in made.why


def test_a_layer_with_a_way_past_the_code_is_not_served():
    """A bottleneck serves the layer that ends in it, not one with outputs around it."""
    made, blocks = propagated(autoencoder(skip=True))

    assert made._linearised.bottleneck.blocks == {blocks.rows[1].slots}


def test_the_memory_that_a_bottleneck_holds_is_enough_for_it():
    """One column of the Jacobian, and a few more on their way."""
    made, _ = propagated(autoencoder(), max_bytes=LEAST)

    assert made._linearised.bottleneck.held == 1


@pytest.mark.parametrize(
    "between",
    [lambda c: c - c.mean(0), lambda c: c.flip(0), lambda c: c.cumsum(0)],
    ids=["mean", "order", "sum"],
)
def test_samples_that_are_mixed_behind_the_code_are_found_out(between):
    """Where z_n depends on other codes than c_n, no bottleneck is taken; products are right."""
    case = autoencoder(between=between)
    made, _ = propagated(case)
    G = bdhf.block_curvature(
        case.model, case.loss_fn, case.batch, partition=bdhf.PerLayer(), method="propagate"
    )  # fmt: skip

    assert made._linearised is None
    assert_close(G.to_dense(), cut(dense_ggn(case), G.blocks), rtol=0, atol=1e-10)


def test_samples_that_are_mixed_before_the_code_do_no_harm():
    """The bottleneck needs samples apart behind the code only."""
    case = autoencoder()
    case.model.encoder.insert(0, nn.Sequential())
    case.model.encoder[0].forward = lambda x: x - x.mean(0)
    narrow, by_bottleneck = multiplied(case)
    plain, _ = multiplied(case, products=1)

    assert by_bottleneck
    assert_close(narrow, plain)


def test_a_decision_holds_for_the_pass_that_it_was_made_on():
    """A model that branches at the same shapes is examined again."""
    ways = [lambda c: c, lambda c: Reversal.apply(c) + 2 * c, lambda c: c.flip(0)]
    case, workspace = autoencoder(), Workspace()
    for way, narrow in ((0, True), (1, False), (2, False), (0, True)):
        case.model.between = ways[way]
        product, by_bottleneck = multiplied(case, workspace=workspace)
        exact, _ = multiplied(case, products=1)

        assert by_bottleneck == narrow
        assert_close(product, exact)
    assert (
        len([key for key in workspace.kept if key[0] == "bottleneck"]) == 2
    )  # the second: no tape


def test_a_bottleneck_is_looked_for_once():
    """The next update of a shape uses the decision, and computes K at its parameters."""
    case, workspace = autoencoder(), Workspace()
    first, _ = propagated(case, workspace=workspace)
    kept = dict(workspace.kept)
    with torch.no_grad():
        for parameter in case.model.parameters():
            parameter.mul_(1.5)
    narrowed, by_bottleneck = multiplied(case, workspace=workspace)
    plain, _ = multiplied(case, products=1)

    assert by_bottleneck
    assert workspace.kept == kept
    assert_close(narrowed, plain)
    assert first._linearised.bottleneck.width == CODE


def test_a_sweep_to_a_bottleneck_goes_back_along_the_tape_only_if_one_to_the_outputs_may():
    """It is compared with the graph over all of the tape, so what was found there holds here."""
    case = build("peephole")
    for agrees in (True, False):
        request = asked(case, bdhf.PerLayer())
        _, tape = recorded(case)
        request.workspace.kept["pull", request.shapes, tape.structure] = agrees

        neck = Propagate(request, request.curvature)._linearised

        assert neck.push.back is agrees


class Neighbours(nn.Module):
    """Rows that are mixed by a matrix between the code and the decoder, and a learned shift."""

    def __init__(self, mixing):
        super().__init__()
        self.shift, self.encoder = nn.Parameter(torch.randn(6)), nn.Linear(6, 4)
        self.decoder = nn.Sequential(
            nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 8)
        )
        self.mixing = mixing

    def forward(self, x):
        return self.decoder(self.mixing(self.encoder(x + self.shift)))


def attended(h):
    """Attention of every row to all rows of the batch."""
    return torch.softmax(h @ h.t(), dim=1) @ h


MIXINGS = {
    "one_neighbour": lambda h: torch.eye(24).roll(1, 0).to(h) @ h,
    "graph": lambda h: (torch.arange(24)[:, None] % (torch.arange(24) + 2) < 2).to(h) @ h,
    "attention": attended,
    "order": lambda h: h.flip(0),
    "scattered": lambda h: h.index_add(0, (torch.arange(24) + 1) % 24, h),
}


def neighbours(mixing):
    """A case of a model that mixes its rows, in float64."""
    torch.manual_seed(0)
    batch = torch.randn(24, 6).double(), torch.randint(0, 8, (24,))
    return Case(Neighbours(mixing).double(), F.cross_entropy, batch)


@pytest.mark.parametrize("method", ["auto", "propagate"])
@pytest.mark.parametrize("mixing", MIXINGS)
def test_rows_that_are_mixed_are_found_out_whatever_the_first_block_does(mixing, method):
    """A shift moves all rows alike, so its product alone does not show that they are mixed."""
    case = neighbours(MIXINGS[mixing])
    G = bdhf.block_curvature(
        case.model, case.loss_fn, case.batch, partition=bdhf.PerLayer(), method=method
    )
    v = torch.randn(G.shape[0], 2, dtype=torch.float64)
    expected = cut(dense_ggn(case), G.blocks) @ v

    assert_close(G @ v, expected, rtol=0, atol=1e-10 * float(expected.norm()))


def test_rows_that_are_mixed_on_a_later_batch_only_are_found_out():
    """The mixing is data: where it changes, no kept decision stands in the way."""
    mixings, workspace = [torch.eye(24), torch.eye(24).roll(1, 0), torch.eye(24)], Workspace()
    case = neighbours(lambda h: mixings[0].to(h) @ h)
    for narrow in (True, False, True):
        product, by_bottleneck = multiplied(case, workspace=workspace)
        exact, _ = multiplied(case, products=1)

        assert by_bottleneck == narrow
        assert_close(product, exact)
        mixings.pop(0)


def test_a_decoder_that_cannot_mix_samples_takes_no_second_look(monkeypatch):
    """Linear layers, convolutions and elementwise functions keep samples apart on any data."""
    looks = []
    monkeypatch.setattr(bottleneck, "apart", lambda *arguments: looks.append(1))
    _, by_bottleneck = multiplied(autoencoder())

    assert by_bottleneck
    assert not looks


def crowded(z, y):
    """A squared error, and a penalty on the mean output of the samples above 5."""
    return (z - y).square().mean() + (z.mean(0) - 5).relu().square().sum()


def test_a_loss_that_mixes_samples_on_a_later_pass_only_is_found_out():
    """Where the loss comes to mix samples, no kept decision stands in the way."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 3)
    ).double()
    case = Case(model, crowded, (torch.randn(8, 4).double(), torch.randn(8, 3).double()))
    workspace = Workspace()
    for height, narrow in ((0.0, True), (10.0, False), (0.0, True)):
        with torch.no_grad():
            model[-1].bias.fill_(height)
        product, by_bottleneck = multiplied(case, workspace=workspace)
        exact, _ = multiplied(case, products=1)

        assert by_bottleneck == narrow
        assert_close(product, exact)

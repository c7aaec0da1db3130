"""Random architectures, losses, curvatures and partitions, against the oracles."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

import bdhf
from bdhf.optim.vectors.layout import layout_of
from tests.cases import Case
from tests.optim.curvatures import CURVATURES, by_pieces, curved
from tests.optim.partitions import PARTITIONS
from tests.oracles import blocked

few = settings(max_examples=40, deadline=None, derandomize=True)

ACTIVATIONS = [nn.Tanh, nn.Sigmoid, nn.Softplus, nn.ReLU, nn.ELU]
LOSSES = {"mse": nn.MSELoss, "ce": nn.CrossEntropyLoss, "bce": nn.BCEWithLogitsLoss}


@st.composite
def cases(draw):
    """A net of up to three layers, dense or convolutional, with a loss and a batch."""
    widths = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    activation, bias = draw(st.sampled_from(ACTIVATIONS)), draw(st.booleans())
    samples, convolve = draw(st.integers(1, 5)), draw(st.booleans())
    loss, reduction = draw(st.sampled_from(sorted(LOSSES))), draw(st.sampled_from(["mean", "sum"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 2**16)))
        model = _net(widths, activation, bias, convolve).double()
        x = torch.randn(samples, widths[0], *([4] if convolve else []), dtype=torch.float64)
        z = model(x).detach()
        y = torch.randint(0, z.shape[1], z[:, 0].shape) if loss == "ce" else torch.rand_like(z)
    return Case(model, LOSSES[loss](reduction=reduction), (x, y))


def _net(widths, activation, bias, convolve):
    """Layers with an activation between them; convolutions keep their positions."""
    layers = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Conv1d(inputs, outputs, 2, bias=bias) if convolve and not layers else None
        if linear is None:
            linear = nn.Conv1d(inputs, outputs, 1) if convolve else nn.Linear(inputs, outputs, bias)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])


def labelled(labels):
    """The partition into the entries of each label, in a drawn order."""
    kinds = list(dict.fromkeys(labels))
    table = torch.tensor(labels)
    return lambda layout: [(table == kind).nonzero().view(1, -1) for kind in kinds]


@st.composite
def cases_and_partitions(draw):
    """A case, and a partition of it: arbitrary blocks, or one of the table."""
    case = draw(cases())
    layout = layout_of(case.model)
    name = draw(st.sampled_from(["labels", "labels", *PARTITIONS]))
    if name != "labels":
        return case, PARTITIONS[name](layout)
    blocks = draw(st.integers(1, 4))
    entries = st.lists(st.integers(0, blocks - 1), min_size=layout.size, max_size=layout.size)
    return case, labelled(draw(entries))


@few
@given(drawn=cases_and_partitions(), curvature=st.sampled_from(sorted(CURVATURES)))
def test_matrix_is_its_definition_cut_to_the_blocks(drawn, curvature):
    """`to_dense` and a product are the matrix as defined, zero outside the blocks."""
    case, partition = drawn
    G = curved(case, curvature, partition)
    v = torch.linspace(-1, 1, G.shape[0], dtype=torch.float64)

    expected = blocked(CURVATURES[curvature][1](case), G._blocks)
    assert_close(G.to_dense(), expected, rtol=1e-9, atol=1e-10)
    assert_close(G @ v, expected @ v, rtol=1e-9, atol=1e-10)


@few
@given(
    drawn=cases_and_partitions(),
    curvature=st.sampled_from(sorted(CURVATURES)),
    size=st.integers(1, 4),
)
def test_micro_batches_make_the_matrix_of_the_whole_batch(drawn, curvature, size):
    """However a batch is split, its loss, gradient and matrix are those of the whole batch."""
    case, partition = drawn
    pieces = list(zip(*(part.split(size) for part in case.batch), strict=True))
    whole = curved(case, curvature, partition)
    parts = curved(case, curvature, partition, pieces)

    expected = blocked(by_pieces(case, curvature, pieces), whole._blocks)
    assert_close(parts._product.loss, whole._product.loss)
    assert_close(parts._product.gradient, whole._product.gradient)
    assert_close(parts.to_dense(), expected, rtol=1e-9, atol=1e-10)
    if curvature != "fisher":  # its draws depend on the split
        assert_close(parts.to_dense(), whole.to_dense(), rtol=1e-9, atol=1e-10)


@few
@given(case=cases(), curvature=st.sampled_from(["ggn", "fisher", "empirical_fisher"]))
def test_factor_is_a_root_of_the_matrix(case, curvature):
    """AᵀA is the matrix, whatever the model, and the matrix has no negative eigenvalue."""
    G = curved(case, curvature, bdhf.Full())
    rows, dense = G._product.factor(7), G.to_dense()

    assert_close(rows.T @ rows, dense, rtol=1e-9, atol=1e-10)
    assert torch.linalg.eigvalsh(dense).min() >= -1e-10 * (1 + dense.norm())

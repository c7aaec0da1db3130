"""Block curvature products against the dense matrix."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import bdhf
from bdhf.optim.errors import ModelTypeError
from bdhf.optim.vectors.layout import layout_of
from tests.cases import CASES, build
from tests.messages import naming
from tests.optim.partitions import PARTITIONS
from tests.oracles import dense_gradient, size

cases = pytest.mark.parametrize("case", CASES)
partitions = pytest.mark.parametrize("partition", PARTITIONS)


def block_curvature(case, partition):
    """The block curvature of a case under a partition of the table."""
    made = PARTITIONS[partition](layout_of(case.model))
    return bdhf.block_curvature(case.model, case.loss_fn, case.batch, partition=made)


@cases
@partitions
def test_product_is_the_dense_product(case, partition):
    """`G @ v` and `G @ V` multiply by the dense matrix, in the order of model.parameters()."""
    case = build(case)
    G = block_curvature(case, partition)
    columns = torch.randn(size(case), 3, dtype=torch.float64)

    assert_close(G @ columns, G.to_dense() @ columns)
    assert_close(G @ columns[:, 0], (G @ columns)[:, 0])
    assert_close(G.matvec(columns[:, 1]), (G @ columns)[:, 1])


@cases
@partitions
def test_blocks_hold_every_trainable_position_once(case, partition):
    """The blocks are a partition of 0 .. P-1."""
    case = build(case)

    positions = torch.cat(block_curvature(case, partition).blocks)

    assert torch.equal(positions.sort().values, torch.arange(size(case)))


@cases
def test_linearisation_gives_loss_and_gradient(case):
    """The graph of the product gives loss and gradient of its batch at no further cost."""
    case = build(case)
    optimizer = bdhf.BlockHessianFree(case.model, case.loss_fn, partition=bdhf.Full())

    batches = (case.batch,)
    expansion, _ = optimizer._linearise(batches, batches)

    assert expansion.loss == case.loss_fn(case.model(case.batch[0]), case.batch[1]).item()
    assert_close(expansion.gradient, dense_gradient(case))


def test_no_product_runs_the_model_forward():
    """The forward pass runs while the curvature is linearised, and never for a product."""
    case = build("mlp")
    calls = []
    case.model.register_forward_hook(lambda *_: calls.append(1))

    G = bdhf.block_curvature(case.model, case.loss_fn, case.batch, partition=bdhf.PerLayer())
    before = len(calls)
    for _ in range(5):
        G @ torch.ones(G.shape[0], dtype=torch.float64)

    assert len(calls) == before


def test_undamped_least_squares_matrix_has_its_closed_form():
    """For a linear model under mean squared error, G is (2 / NC) I ⊗ XᵀX."""
    model = nn.Linear(3, 2, bias=False).double()
    x, y = torch.randn(5, 3).double(), torch.randn(5, 2).double()

    G = bdhf.block_curvature(model, nn.functional.mse_loss, (x, y))

    expected = torch.block_diag(x.T @ x, x.T @ x) * 2 / (5 * 2)
    assert_close(G.to_dense(), expected)


def test_softmax_regression_matrix_has_its_closed_form():
    """For softmax regression, G is the mean of (diag p - ppᵀ) ⊗ xxᵀ."""
    model = nn.Linear(3, 4, bias=False).double()
    x, y = torch.randn(6, 3).double(), torch.randint(0, 4, (6,))
    p = model(x).softmax(1).detach()

    G = bdhf.block_curvature(model, nn.functional.cross_entropy, (x, y))

    terms = [torch.kron(q.diag() - q.outer(q), a.outer(a)) for q, a in zip(p, x, strict=True)]
    assert_close(G.to_dense(), torch.stack(terms).mean(0))


def test_a_tied_tensor_belongs_to_its_first_name():
    """A tensor with two names has one place in the vector, in the layer that is named first."""
    case = build("tied")

    layout = layout_of(case.model)

    assert [s.name for s in layout.slots][:2] == ["encoder.weight", "encoder.bias"]
    assert layout.aliases == ("mirror.weight", "mirror.bias")


def test_graph_is_freed_with_the_matrix():
    """Nothing keeps the retained graph alive once the matrix is gone."""
    case = build("mlp")
    G = bdhf.block_curvature(case.model, case.loss_fn, case.batch)
    outputs = weakref.ref(G._product.parts[0][1].outputs)

    del G
    gc.collect()

    assert outputs() is None


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_a_vector_of_another_type_is_multiplied_in_the_precision_of_the_model(dtype):
    """Whole numbers are the numbers that they stand for, and round no product."""
    case = build("mlp")
    G = bdhf.block_curvature(case.model, case.loss_fn, case.batch)
    v = torch.arange(G.shape[0] * 2).view(-1, 2).remainder(3).to(dtype)

    made = G @ v

    assert made.dtype == (dtype if dtype.is_floating_point else torch.float64)
    torch.testing.assert_close(made.double(), G @ v.double(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close((G @ v[:, 0]).double(), G @ v[:, 0].double(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("wrong", [lambda v: v.numpy(), lambda v: v.tolist(), lambda v: v + 0j])
def test_what_is_no_real_vector_is_refused(wrong):
    """The error for an array of numpy has the conversion."""
    case = build("mlp")
    G = bdhf.block_curvature(case.model, case.loss_fn, case.batch)

    with pytest.raises(ModelTypeError, match=naming("torch.as_tensor")):
        G @ wrong(torch.zeros(G.shape[0], dtype=torch.float64))


@pytest.mark.parametrize("shape", [(3,), (70, 2, 1), ()])
def test_a_vector_of_the_wrong_shape_is_an_error_that_names_the_right_one(shape):
    """The error for anything but (P,) or (P, k) has the allowed shapes."""
    case = build("mlp")
    G = bdhf.block_curvature(case.model, case.loss_fn, case.batch)

    with pytest.raises(ValueError, match=r"\(\d+,\).*\(\d+, k\)"):
        G @ torch.zeros(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "magic"}, naming("'magic'", "auto", "propagate", "layer_io")),
        ({"batch": [1, 2]}, naming("(inputs, targets)")),
        ({"loss_fn": nn.MSELoss(reduction="none")}, naming("reduction='mean'", "'sum'")),
        ({"model": nn.LSTM(4, 3).double()}, naming("LSTM", "tuple", "Tensor")),
    ],
)
def test_what_cannot_be_linearised_is_an_error_that_says_what_to_do(change, message):
    """Unknown methods, wrong batches, losses and outputs are refused in words."""
    case = build("mlp")
    arguments = {"model": case.model, "loss_fn": case.loss_fn, "batch": case.batch} | change

    with pytest.raises((ValueError, TypeError), match=message):
        bdhf.block_curvature(**arguments)


def test_a_model_that_detaches_its_outputs_is_an_error():
    """Outputs that no trainable parameter reaches are refused, not multiplied as zero."""

    class Detached(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(ValueError, match=naming("Detached", "detach()")):
        bdhf.block_curvature(
            Detached(2, 1), nn.functional.mse_loss, (torch.ones(1, 2), torch.ones(1, 1))
        )

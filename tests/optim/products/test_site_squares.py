"""Squared gradients of the samples by matrix products per site: which way each parameter takes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import ModelError
from bdhf.optim.forward.objective import Objective
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import Settings, Workspace, linearise, per_sample
from bdhf.optim.products.layer_io import site_squares
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.vectors.layout import layout_of
from tests.cases import CASES, Case, build
from tests.messages import naming
from tests.optim.optimizers import regression
from tests.optim.partitions import PARTITIONS


def linearised(case, partition="full", workspace=None, **settings):
    """The GGN of a case, with what a workspace remembers."""
    layout = layout_of(case.model)
    return linearise(
        Objective.of(case.model, case.loss_fn), [case.batch], curvature=bdhf.GGN(),
        blocks=cut(layout, PARTITIONS[partition](layout)), flops=Flops(),
        settings=Settings(**settings), workspace=workspace or Workspace(),
    )  # fmt: skip


def both_ways(case, partition="full", workspace=None, **settings):
    """D by sites and by a pass over the samples, (P,) each, in the order of the parameters."""
    product = linearised(case, partition, workspace, **settings)
    ways = product.squared_gradients_by_site(), product.squared_gradients()
    return tuple(product.blocks.scatter(made) for made in ways)


def assert_equal_ways(case, **settings):
    """Both ways give the same D."""
    by_site, by_sample = both_ways(case, **settings)
    assert_close(by_site, by_sample, rtol=1e-12, atol=1e-14)


@pytest.fixture
def passes(monkeypatch):
    """The parameters of every pass over the samples that the sites needed."""
    taken, original = [], site_squares.squared_gradients

    def watched(request, cotangents, slots=None):
        taken.append(slots)
        return original(request, cotangents, slots)

    monkeypatch.setattr(site_squares, "squared_gradients", watched)
    return taken


#: Cases with parameters that no site covers, and the indices of these.
UNCOVERED = {"tied": [0]}


@pytest.mark.parametrize("case", CASES)
def test_a_pass_over_the_samples_is_for_parameters_without_a_site(case, passes):
    """A weight used in two ways needs one; all others need none."""
    by_site, by_sample = both_ways(build(case))

    assert passes == ([UNCOVERED[case]] if case in UNCOVERED else [])
    assert_close(by_site, by_sample, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_rows_that_a_partition_cuts_are_covered(partition, passes):
    """The elementwise square knows no blocks."""
    assert_equal_ways(build("conv"), partition=partition)

    assert passes == []


@pytest.mark.parametrize("case", ["conv", "sdpa", "norms", "peephole"])
def test_chunks_of_samples_add_up(case, monkeypatch):
    """With memory for one entry the samples come one by one."""
    monkeypatch.setattr(per_sample, "MAX_ENTRIES", 1)

    assert_equal_ways(build(case))


def test_an_index_that_a_sample_repeats_is_squared_once_added_up():
    """The rows of a padding index stay 0, and those of repeated ones have the squared sum."""
    draws = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3, padding_idx=2), nn.Flatten(), nn.Tanh())
    model.append(nn.Linear(12, 2)).double()
    index = torch.tensor([[0, 0, 1, 2], [2, 2, 3, 3], [4, 4, 4, 4]])
    targets = torch.randn(3, 2, generator=draws, dtype=torch.float64)

    by_site, by_sample = both_ways(Case(model, F.mse_loss, (index, targets)))

    assert_close(by_site, by_sample, rtol=1e-12, atol=1e-14)
    assert not by_site[6:9].any()
    assert by_site[:6].all()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 3, groups=2),
        nn.ConvTranspose1d(4, 6, 3, groups=2, stride=2),
        nn.LayerNorm([4, 8]),
        nn.GroupNorm(2, 4),
        nn.Linear(8, 5),
        nn.Linear(8, 5, bias=False),
    ],
)
def test_positions_and_groups_are_added_within_a_sample(layer):
    """A layer over four channels of eight positions, behind a weight of every position."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = copy.deepcopy(layer).double()
        model = nn.Sequential(nn.LayerNorm(8), layer, nn.Tanh(), nn.Flatten()).double()
        x = torch.randn(6, 4, 8, dtype=torch.float64)
        y = torch.randn_like(model(x)).detach()

    assert_equal_ways(Case(model, F.mse_loss, (x, y)))


@pytest.mark.parametrize("case", ["mlp", "conv", "norms", "embedding", "transposed"])
def test_single_precision_differs_by_rounding(case):
    """To 1e-5 of the largest entry."""
    case = build(case)
    case.model.float()
    x, y = (part.float() if part.is_floating_point() else part for part in case.batch)

    by_site, by_sample = both_ways(Case(case.model, case.loss_fn, (x, y)))

    assert by_site.dtype == torch.float32
    assert_close(by_site, by_sample, rtol=1e-5, atol=1e-5 * float(by_sample.max()))


def test_products_in_low_precision_leave_the_squares_exact():
    """`product_dtype` is of products only."""
    model, batch = regression()
    case = Case(model, F.mse_loss, batch)

    by_site, by_sample = both_ways(case, dtype=torch.bfloat16, method="layer_io")

    assert_close(by_site, by_sample, rtol=1e-5, atol=1e-5 * float(by_sample.max()))


class Gated(nn.Module):
    """A layer whose weight or samples have another use where the first entry is above 9."""

    def __init__(self, couples):
        super().__init__()
        self.first, self.last, self.couples = nn.Linear(3, 4), nn.Linear(4, 2), couples

    def forward(self, x):
        open_gate = (x[:, :1] > 9).to(x)
        h = torch.tanh(self.first(x))
        more = h.sum() if self.couples else (x[:, :1] * self.first.weight[0] ** 2).sum(1, True)
        return self.last(h + open_gate * more)


def gated(couples):
    """Its case, and the same with a gate that is open for one sample."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Gated(couples).double()
        x, y = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    later = x.clone()
    later[2, 0] = 10.0
    return Case(model, F.mse_loss, (x, y)), Case(model, F.mse_loss, (later, y))


def test_another_use_that_a_later_batch_opens_is_seen(passes):
    """A gate that was shut when the uses were compared: the pass over the samples replaces them."""
    case, later = gated(couples=False)
    workspace = Workspace()
    assert_equal_ways(case, workspace=workspace)
    assert passes == []

    assert_equal_ways(later, workspace=workspace)

    assert passes == [None]


def test_samples_that_a_later_batch_couples_are_refused():
    """The sites of the first batch keep them apart."""
    case, later = gated(couples=True)
    workspace = Workspace()
    assert_equal_ways(case, workspace=workspace)

    with pytest.raises(ModelError, match=naming("Gated", "preconditioner")):
        linearised(later, workspace=workspace).squared_gradients_by_site()


def test_a_sample_without_a_finite_gradient_is_not_hidden():
    """NaN in the data is NaN in D, in both ways."""
    case = build("norms")
    case.batch[0][0] = torch.nan

    by_site, by_sample = both_ways(case)

    assert torch.equal(by_site.isnan(), by_sample.isnan())
    assert by_site.isnan().any()


def test_the_squares_take_less_than_a_pass_over_the_samples():
    """In floating-point operations: no sweep to the inputs of the first layer."""
    model, batch = regression()
    product = linearised(Case(model, F.mse_loss, batch), method="propagate")
    before = product.flops.spent
    product.squared_gradients()
    by_sample, before = product.flops.spent - before, product.flops.spent

    product.squared_gradients_by_site()

    assert 0 < product.flops.spent - before <= by_sample

"""A weighted sum of matrices: the mixture of Hessian and GGN, between its two ends."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import Stop
from bdhf.optim.estimate import Shared, count_products
from bdhf.optim.forward.objective import Objective
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import Settings
from bdhf.optim.products.weighted_sum import terms_of
from bdhf.optim.vectors.layout import layout_of
from tests.cases import build
from tests.messages import naming
from tests.oracles import dense_ggn, dense_gradient, dense_hessian, flat_parameters, size


def curved(case, curvature, **settings):
    """The block curvature of a case under one block per layer."""
    return bdhf.block_curvature(
        case.model, case.loss_fn, case.batch,
        curvature=curvature, partition=bdhf.PerLayer(), **settings,
    )  # fmt: skip


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_a_share_is_from_0_to_1(alpha):
    """Any other is refused, with the argument and what its ends stand for."""
    with pytest.raises(ValueError, match=naming("Mixed", "alpha", "GGN", "Hessian", str(alpha))):
        bdhf.Mixed(alpha)


@pytest.mark.parametrize("name", ["classifier", "peephole", "own_loss"])
@pytest.mark.parametrize(("alpha", "end"), [(0, bdhf.GGN()), (1, bdhf.Hessian())])
def test_the_ends_are_the_two_matrices_to_the_bit(name, alpha, end):
    """Without a share there is no second matrix, so method, loss and products are the same."""
    case = build(name)
    mixed, expected = curved(case, bdhf.Mixed(alpha)), curved(case, end)
    v = torch.randn(size(case), dtype=torch.float64)

    assert (mixed.method, mixed.explain()) == (expected.method, expected.explain())
    assert torch.equal(mixed @ v, expected @ v)
    assert torch.equal(mixed._product.loss, expected._product.loss)
    assert torch.equal(mixed._product.gradient, expected._product.gradient)


def test_the_sample_space_takes_a_mixture_without_hessian():
    """Its factor is that of the GGN, and so is the step."""
    after = []
    for curvature in (bdhf.GGN(), bdhf.Mixed(0.0)):
        case = build("classifier")
        bdhf.BlockHessianFree(
            case.model, case.loss_fn, curvature=curvature, solver=bdhf.SampleSpace()
        ).step(case.batch)
        after.append(flat_parameters(case))
    assert torch.equal(*after)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["tied", "lstm"])
def test_a_matrix_between_the_ends_is_their_line(name, alpha):
    """α ∇²L + (1 - α) JᵀHJ in every entry."""
    case = build(name)
    expected = alpha * dense_hessian(case) + (1 - alpha) * dense_ggn(case)

    G = bdhf.block_curvature(
        case.model, case.loss_fn, case.batch, curvature=bdhf.Mixed(alpha)
    )  # fmt: skip

    assert_close(G.to_dense(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["auto", "layer_io"])
def test_it_names_the_share_and_the_way_of_each_matrix(method):
    """A request for layer_io is met by propagation, with the reason."""
    G = curved(build("mlp"), bdhf.Mixed(0.25), method=method)

    assert G.method == "propagate"
    for fact in ("0.25 × (", "0.75 × (", "Hessian", "graph of the gradient", "J v in forward mode"):
        assert fact in G.explain()
    assert ("layer_io does not apply" in G.explain()) == (method == "layer_io")


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_product_costs_one_with_each_matrix(dtype):
    """In every block, and of the full matrix; the gradient is the same unit."""
    model, batch = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), torch.ones(4, 6)
    objective, blocks = Objective.of(model, F.mse_loss), cut(layout_of(model), bdhf.PerLayer())
    mixed, ggn, hessian = (
        count_products(
            objective, (batch, torch.zeros(4, 3)), Shared(), curvature=curvature, blocks=blocks,
            solver=bdhf.CG(), settings=Settings("propagate", dtype=dtype),
        )
        for curvature in (bdhf.Mixed(0.5), bdhf.GGN(), bdhf.Hessian())
    )  # fmt: skip

    expected = [a + b for a, b in zip(ggn.blocks, hessian.blocks, strict=True)]
    assert mixed.blocks == pytest.approx(expected)
    assert mixed.whole == pytest.approx(ggn.whole + hessian.whole)
    assert mixed.gradient == ggn.gradient == hessian.gradient
    assert mixed.setup == pytest.approx(1 + ggn.setup + hessian.setup)  # another linearisation
    assert math.isnan(mixed.factor_rows)


def test_cg_meets_negative_curvature():
    """At a saddle of the loss the share of ∇²L makes gᵀMg negative, which the step reports."""
    torch.manual_seed(0)
    case = build("mlp")
    target = case.model(case.batch[0]).detach() * 50  # residuals, hence second derivatives
    case = type(case)(case.model, case.loss_fn, (case.batch[0], target))
    matrix = 0.9 * dense_hessian(case) + 0.1 * dense_ggn(case)
    assert torch.linalg.eigvalsh(matrix).min() < -1e-3

    info = bdhf.BlockHessianFree(
        case.model, case.loss_fn, curvature=bdhf.Mixed(0.9), partition=bdhf.Full(),
        damping=bdhf.Constant(0.0), solver=bdhf.CG(max_iters=300, tol=0, residual_tol=1e-12),
    ).step(case.batch)  # fmt: skip

    assert info.stop == (Stop.NEGATIVE_CURVATURE,)


def test_a_step_solves_the_system_of_the_mixture():
    """(α ∇²L + (1 - α) JᵀHJ + λI) d = -g with the full matrix, by CG and by Cholesky."""
    for solver in (bdhf.CG(max_iters=500, tol=0, residual_tol=1e-13), bdhf.Cholesky()):
        case = build("classifier")
        matrix = 0.4 * dense_hessian(case) + 0.6 * dense_ggn(case)
        damping = 1.0 + max(0.0, -float(torch.linalg.eigvalsh(matrix).min()))
        damped = matrix + damping * torch.eye(len(matrix), dtype=torch.float64)
        expected = flat_parameters(case) - torch.linalg.solve(damped, dense_gradient(case))

        bdhf.BlockHessianFree(
            case.model, case.loss_fn, curvature=bdhf.Mixed(0.4), partition=bdhf.Full(),
            damping=bdhf.Constant(damping), solver=solver, lr=1.0,
        ).step(case.batch)  # fmt: skip

        assert_close(flat_parameters(case), expected, rtol=0, atol=1e-9)


def test_a_term_is_itself_where_there_is_no_sum():
    """Every other linearisation is its only term, with weight 1."""
    part = curved(build("mlp"), bdhf.GGN())._product.first

    assert terms_of(part) == ((1.0, part),)

"""Every curvature × partition × case against the dense matrix of its definition.

A new line in a table of `experiments.build` or in `tests/cases.py` is tested here at once.
"""

import pytest
import torch
from torch.testing import assert_close

from bdhf.optim.vectors.layout import layout_of
from tests.cases import CASES, build
from tests.messages import naming
from tests.optim.curvatures import (
    CURVATURES,
    DEFINED,
    INDEFINITE,
    NAMED_INSTEAD,
    UNDEFINED,
    UNKNOWN_TERMS,
    by_pieces,
    curved,
)
from tests.optim.devices import GPUS
from tests.optim.partitions import PARTITIONS
from tests.oracles import blocked, cut, dense_ggn, size

defined = pytest.mark.parametrize(("case", "curvature"), DEFINED)
undefined = pytest.mark.parametrize(("case", "curvature"), UNDEFINED)
partitions = pytest.mark.parametrize("partition", PARTITIONS)
devices = pytest.mark.parametrize("device", ["cpu", *GPUS])
splits = pytest.mark.parametrize("sizes", [[1, 3], [2, 2], [3, 1]])


def block_curvature(case, curvature, partition, batch=None):
    """The block curvature of a case under a curvature and a partition of the tables."""
    return curved(case, curvature, PARTITIONS[partition](layout_of(case.model)), batch)


def split(case, sizes):
    """The first samples of a case, and the same as micro-batches of these sizes."""
    x, y = (part[: sum(sizes)] for part in case.batch)
    return (x, y), list(zip(x.split(sizes), y.split(sizes), strict=True))


@devices
@defined
@partitions
def test_matrix_is_its_definition_cut_to_the_blocks(case, curvature, partition, device):
    """`to_dense` is the matrix as defined, zero outside the blocks, to 1e-10."""
    case, oracle = build(case, device=device), build(case)
    G = block_curvature(case, curvature, partition)

    expected = blocked(CURVATURES[curvature][1](oracle), G._blocks)
    assert_close(G.to_dense().cpu(), expected, rtol=0, atol=1e-10)


@devices
@undefined
@partitions
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
def test_a_curvature_that_a_loss_does_not_have_is_refused(
    case, curvature, partition, dtype, device
):
    """Nothing to draw from, or no terms of which each has a score."""
    case = build(case, dtype=dtype, device=device)

    with pytest.raises(ValueError, match=NAMED_INSTEAD):
        block_curvature(case, curvature, partition)


@devices
@defined
def test_float32_product_is_the_float64_product_within_its_tolerance(case, curvature, device):
    """The same matrix comes out in single precision, where other kernels run."""
    exact, single = build(case), build(case, dtype=torch.float32, device=device)
    if curvature == "fisher":  # draws differ between precisions: compare with the GGN of one draw
        curvature = "ggn"
    v = torch.randn(size(exact), dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    product = block_curvature(single, curvature, "per_layer") @ v.float().to(device)

    reference = block_curvature(exact, curvature, "per_layer") @ v
    assert_close(product.double().cpu(), reference, rtol=1e-3, atol=1e-5)


@defined
@partitions
def test_product_is_linear_and_symmetric(case, curvature, partition):
    """G(2u + v) = 2Gu + Gv, and uᵀGv = vᵀGu."""
    case = build(case)
    G = block_curvature(case, curvature, partition)
    u, v = torch.randn(2, size(case), dtype=torch.float64)
    gu, gv = G @ u, G @ v

    assert_close(G @ (2 * u + v), 2 * gu + gv)
    assert_close(u @ gv, v @ gu)


@pytest.mark.parametrize("partition", ["full", "blend"])
@pytest.mark.parametrize(
    ("case", "curvature"), [pair for pair in DEFINED if pair[1] not in INDEFINITE]
)
def test_matrix_is_positive_semi_definite_where_promised(case, curvature, partition):
    """No eigenvalue of a Jᵀ H J lies below zero, nor of its blends with a block-diagonal."""
    case = build(case)
    values = torch.linalg.eigvalsh(block_curvature(case, curvature, partition).to_dense())

    assert values.min() >= -1e-10 * values.max()


@pytest.mark.parametrize(
    ("case", "curvature"), [pair for pair in DEFINED if pair[1] not in INDEFINITE]
)
def test_factor_is_a_root_of_the_matrix(case, curvature):
    """AᵀA is the matrix, for every curvature that has a factor."""
    G = block_curvature(build(case), curvature, "full")

    rows = G._product.factor(3)

    assert len(rows) == G._product.factor_rows
    assert_close(rows.T @ rows, G.to_dense(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("curvature", INDEFINITE)
def test_an_indefinite_matrix_has_no_factor(case, curvature):
    """That holds for every model."""
    G = block_curvature(build(case), curvature, "full")

    with pytest.raises(ValueError, match=naming("Hessian", "CG", "Cholesky", "GGN")):
        G._product.factor(3)


@pytest.mark.parametrize(
    ("case", "curvature"),
    [pair for pair in DEFINED if pair[0] not in UNKNOWN_TERMS and pair[1] != "fisher"],
)
@splits
def test_micro_batches_make_the_matrix_of_the_whole_batch(case, curvature, sizes):
    """Unequal micro-batches, weighted by loss terms, add up to loss, gradient and matrix."""
    case = build(case)
    batch, pieces = split(case, sizes)

    whole = block_curvature(case, curvature, "per_layer", batch)
    parts = block_curvature(case, curvature, "per_layer", pieces)

    assert_close(parts._product.loss, whole._product.loss)
    assert_close(parts._product.gradient, whole._product.gradient)
    assert_close(parts.to_dense(), whole.to_dense(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", [case for case, curvature in DEFINED if curvature == "fisher"])
@splits
def test_draws_continue_from_one_micro_batch_to_the_next(case, sizes):
    """The Fisher of micro-batches is the weighted sum of theirs; loss and gradient draw nothing."""
    case = build(case)
    batch, pieces = split(case, sizes)

    whole = block_curvature(case, "fisher", "per_layer", batch)
    parts = block_curvature(case, "fisher", "per_layer", pieces)

    assert_close(parts._product.loss, whole._product.loss)
    assert_close(parts._product.gradient, whole._product.gradient)
    summed = cut(by_pieces(case, "fisher", pieces), parts.blocks)
    assert_close(parts.to_dense(), summed, rtol=0, atol=1e-10)


@undefined
@splits
def test_micro_batches_give_a_loss_no_curvature_that_it_does_not_have(case, curvature, sizes):
    """They are refused as the whole batch is."""
    case = build(case)

    with pytest.raises(ValueError, match=NAMED_INSTEAD):
        block_curvature(case, curvature, "per_layer", split(case, sizes)[1])


@pytest.mark.parametrize(
    ("case", "curvature"), [pair for pair in DEFINED if pair[0] in UNKNOWN_TERMS]
)
@splits
def test_micro_batches_of_a_loss_without_known_terms_are_refused(case, curvature, sizes):
    """Their weights are unknown."""
    case = build(case)

    with pytest.raises(
        ValueError, match=naming("micro-batches", "log_cosh", "bdhf.optim.Likelihood")
    ):
        block_curvature(case, curvature, "per_layer", split(case, sizes)[1])


@defined
def test_check_finds_nothing_wrong_with_the_cases(case, curvature):
    """The self-check passes on every module that is supported, in both precisions."""
    for dtype in (torch.float64, torch.float32):
        built = build(case, dtype=dtype)
        check = block_curvature(built, curvature, "per_layer").check()

        assert check.passed, check.problem
        assert check.repeatability == 0
        assert check.asymmetry < 1e-3
        assert check.finite_difference < (1e-5 if dtype == torch.float64 else 1e-2)


@pytest.mark.parametrize("case", ["mlp", "classifier", "sum_bce"])
@pytest.mark.parametrize("partition", ["full", "per_layer", "per_neuron"])
def test_off_block_energy_is_the_ratio_of_frobenius_norms(case, partition):
    """Hutchinson's estimate comes to ‖G - G_block‖_F / ‖G‖_F; 0 for the full matrix."""
    case = build(case)
    G = block_curvature(case, "ggn", partition)
    dense = dense_ggn(case)
    exact = (dense - cut(dense, G.blocks)).norm() / dense.norm()

    estimate = G.off_block_energy(probes=400)

    assert estimate == pytest.approx(float(exact), rel=0.25, abs=1e-12)

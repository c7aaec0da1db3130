"""Models of other libraries: the products are those of the dense matrix."""

import pytest
import torch

import bdhf
from tests.zoo.entry import cast, seeded
from tests.zoo.libraries import LIBRARIES
from tests.zoo.oracle import Oracle


@pytest.mark.libraries
@pytest.mark.filterwarnings("default")  # what other libraries warn of
@pytest.mark.parametrize("partition", [bdhf.Full(), bdhf.PerLayer()], ids=["full", "per_layer"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_products_are_those_of_the_dense_matrix(name, partition):
    """G v is the float64 matrix, cut to the blocks, times v."""
    case = seeded(LIBRARIES[name])
    G = bdhf.block_curvature(case.model, case.loss_fn, case.batch, partition=partition)
    matrix = Oracle(cast(seeded(LIBRARIES[name]), torch.float64)).ggn()
    v = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0))
    expected = torch.zeros_like(v, dtype=torch.float64)
    for block in G.blocks:
        expected[block] = matrix[block[:, None], block] @ v[block].double()

    error = (G @ v).double() - expected

    assert error.norm() <= 1e-3 * expected.norm()

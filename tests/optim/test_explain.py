"""The lines on how an optimizer computes an update."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bdhf
from bdhf.optim import EKFAC, KFAC, Martens, explain
from tests.cases import build


def explained(solver, case="classifier", **parts):
    """The lines for a case."""
    case = build(case)
    optimizer = bdhf.BlockHessianFree(case.model, case.loss_fn, solver=solver, **parts)
    before = [parameter.detach().clone() for parameter in case.model.parameters()]
    lines = explain(optimizer, case.batch).splitlines()
    pairs = zip(case.model.parameters(), before, strict=True)
    assert all(torch.equal(parameter, start) for parameter, start in pairs)
    assert not optimizer.state
    return lines


@pytest.mark.parametrize("solver", [bdhf.CG(), bdhf.Cholesky(), bdhf.SaddleFree()], ids=repr)
def test_without_a_preconditioner_there_is_the_line_on_products(solver):
    """It names the method that the matrix itself names."""
    (line,) = explained(solver, method="propagate")

    assert "propagate" in line


@pytest.mark.parametrize(
    ("preconditioner", "name"),
    [(KFAC(), "K-FAC"), (EKFAC(), "EKFAC"), (Martens(), "Martens"), (bdhf.Nystrom(2), "2")],
    ids=["kfac", "ekfac", "martens", "nystrom"],
)
def test_the_preconditioner_is_named_with_its_costs(preconditioner, name):
    """The second line has what was built, and gradients per update and iteration."""
    for solver in (bdhf.CG(preconditioner=preconditioner), bdhf.Direction(preconditioner)):
        line = explained(solver)[1]

        assert name in line
        assert "per update" in line
        assert "per iteration" in line


def test_factors_are_told_by_how_they_are_inverted():
    """The last layer of squared error is c · I; few samples of many inputs are kept as vectors."""
    model = nn.Sequential(nn.Linear(50, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    batch = torch.randn(4, 50).double(), torch.randn(4, 2).double()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, solver=bdhf.CG(preconditioner=KFAC()))

    line = explain(optimizer, batch).splitlines()[1]

    assert "1 Woodbury" in line
    assert "1 multiple of I" in line
    assert "2 Cholesky" in line

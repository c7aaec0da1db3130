"""Recipes: named optimizers are the parts that their papers name, and they train."""

import copy
import dataclasses
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bdhf
from bdhf.nn import Sparse
from bdhf.recipes import martens2010, zhang2017
from tests.optim.optimizers import regression


def autoencoder(init):
    """A small autoencoder of logistic units with a linear code, and data on a curve."""
    draws = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 12), nn.Sigmoid(), nn.Linear(12, 2), nn.Linear(2, 12), nn.Sigmoid()
    )
    model.append(nn.Linear(12, 16))
    init(model, draws)
    angle = 6.28 * torch.rand(80, 1, generator=draws)
    x = torch.sigmoid(3 * torch.cos(angle - torch.linspace(0, 6.28, 16)))
    return model, (x, x)


@pytest.mark.parametrize("init", [Sparse(15), Sparse(5, scale=0.5)])
def test_martens2010_trains_an_autoencoder_with_adaptive_damping(init):
    """No update raises the loss of the gradient batch, and λ follows the reduction ratio."""
    model, batch = autoencoder(init)
    optimizer = martens2010(model, F.mse_loss)
    subset = tuple(part[:40] for part in batch)

    infos = [optimizer.step(batch, subset) for _ in range(15)]

    losses = [info.loss for info in infos]
    dampings = [info.damping[0] for info in infos]
    assert all(after <= before for before, after in pairwise(losses))
    assert losses[-1] < 0.2 * losses[0]
    assert dampings[0] == 1.0
    assert len(set(dampings)) > 5
    for info, after in pairwise(infos):
        followed = optimizer.damping.update(info.damping[0], info.reduction_ratio)
        assert after.damping == (followed,)


def test_martens2010_has_the_parts_of_its_paper():
    """Full GGN, preconditioned CG with Martens' stop, λ from 1, line search, L2 of 2e-5."""
    model, _ = regression()

    optimizer = martens2010(model, F.mse_loss)

    assert optimizer.curvature == bdhf.GGN()
    assert [block.size for block in optimizer.blocks.rows] == [optimizer.blocks.layout.size]
    assert optimizer.solver == bdhf.CG(
        max_iters=250, tol=5e-4, warm_start=0.95, preconditioner=bdhf.Martens(squares="sites")
    )
    assert optimizer.damping == bdhf.LevenbergMarquardt(1.0)
    assert optimizer.acceptance == bdhf.Backtracking(shrink=0.8, armijo=1e-2, max_tries=60)
    assert optimizer.regularization == bdhf.L2(2e-5)
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_martens2010_takes_other_settings():
    """The first λ, the iterations and the preconditioner; nothing else changes."""
    model, _ = regression()
    other = martens2010(model, F.mse_loss, damping=0.1, max_iters=5, preconditioner=bdhf.KFAC())
    usual = martens2010(model, F.mse_loss)

    assert other.damping == bdhf.LevenbergMarquardt(0.1)
    assert other.solver == dataclasses.replace(
        usual.solver, max_iters=5, preconditioner=bdhf.KFAC()
    )
    assert (other.curvature, other.acceptance) == (usual.curvature, usual.acceptance)
    assert other.regularization == usual.regularization


def test_martens2010_takes_the_steps_of_a_pass_over_the_samples():
    """Its squares are the same numbers, so ten updates in float64 are too."""
    model, batch = autoencoder(Sparse(15))
    twin = copy.deepcopy(model)
    batch = tuple(part.double() for part in batch)
    subset = tuple(part[:40] for part in batch)
    recipe = martens2010(model.double(), F.mse_loss)
    by_sample = martens2010(twin.double(), F.mse_loss, preconditioner=bdhf.Martens())

    infos = [(recipe.step(batch, subset), by_sample.step(batch, subset)) for _ in range(10)]

    assert all(info.cg_iterations == other.cg_iterations for info, other in infos)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)


def test_martens2010_with_kfac_goes_further_in_as_many_iterations():
    """Ten updates of five iterations on an autoencoder, from a λ that suits it."""
    losses = {}
    for preconditioner in (bdhf.Martens(squares="sites"), bdhf.KFAC()):
        model, batch = autoencoder(Sparse(5, scale=0.5))
        optimizer = martens2010(
            model, F.mse_loss, damping=1e-2, max_iters=5, preconditioner=preconditioner
        )
        infos = [optimizer.step(batch) for _ in range(11)]
        losses[type(preconditioner)] = infos[-1].loss / infos[0].loss
        assert all(info.cg_iterations == (5,) for info in infos)

    assert losses[bdhf.KFAC] < 0.8 * losses[bdhf.Martens]


@pytest.mark.parametrize("partition", [bdhf.Full(), bdhf.Groups([["0.*"], ["2.*"]])])
def test_zhang2017_is_the_optimizer_of_its_parts(partition):
    """The same infos and the same bits as BlockHessianFree built by hand."""
    model, batch = regression()
    twin = copy.deepcopy(model)
    subset = tuple(part[:50] for part in batch)
    recipe = zhang2017(model, F.mse_loss, partition, lr=0.4, damping=2e-3, max_iters=7)
    by_hand = bdhf.BlockHessianFree(
        twin,
        F.mse_loss,
        curvature=bdhf.GGN(),
        partition=partition,
        solver=bdhf.CG(max_iters=7, tol=5e-4, warm_start=0.95),
        damping=bdhf.Constant(2e-3),
        acceptance=bdhf.FullStep(),
        lr=0.4,
    )

    infos = [(recipe.step(batch, subset), by_hand.step(batch, subset)) for _ in range(5)]

    assert all(info == other for info, other in infos)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)

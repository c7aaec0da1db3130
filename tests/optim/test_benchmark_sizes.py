"""Block HF of single neurons trains the networks that are measured, at their sizes, on digits."""

import pytest
import torch

import bdhf
from bdhf.problems import MLP, Autoencoder, ResNet

UPDATES = 5

#: Problem, samples of a batch, and a curvature with few columns for each.
WORKS = {
    "classifier-ggn": (MLP(hidden=(1000, 500, 250, 100)), 512, bdhf.GGN()),
    "autoencoder-fisher": (Autoencoder(encoder=(784, 1000, 500, 250, 30)), 512, bdhf.Fisher()),
    "resnet-fisher": (ResNet(channels=(16, 32, 64)), 128, bdhf.Fisher()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKS)
def test_blocks_of_neurons_lower_the_loss_at_every_update(name):
    """One batch, damped and with a line search, as steps of many blocks together overshoot."""
    problem, samples, curvature = WORKS[name]
    model, train = problem.build(), problem.load().train
    problem.initialise(model, torch.Generator().manual_seed(0))
    inputs, targets = (part[:samples] for part in train)
    optimizer = bdhf.BlockHessianFree(
        model, problem.loss, curvature=curvature, partition=bdhf.PerNeuron(), lr=1.0,
        solver=bdhf.CG(max_iters=10), damping=bdhf.LevenbergMarquardt(0.1),
        acceptance=bdhf.Backtracking(),
    )  # fmt: skip
    steps = [optimizer.step((inputs, targets)) for _ in range(UPDATES)]
    with torch.no_grad():
        last = float(problem.loss(model(inputs), targets))

    losses = [*(step.loss for step in steps), last]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.98 * losses[0]
    assert all(step.gradient_equivalents < 30 for step in steps)

"""The pairing of arms: one initialisation and one order of batches per seed, byte for byte."""

import hashlib
import random

import numpy as np
import pytest
import torch

from bdhf.experiments.run import updaters
from bdhf.records import Budget
from tests.experiments.specs import outcome


@pytest.fixture
def seen(monkeypatch):
    """Arm -> digests of its initial parameters and of its batches, update by update.

    An arm called "restless" draws from every global generator before each of its updates.
    """
    by_arm = {}

    def spied(cls):
        step = cls.step

        def recorded(self, batch, curvature, watch):
            own = by_arm.setdefault(by_arm["now"], [])
            if not own:
                parameters = (p for g in self._optimizer.param_groups for p in g["params"])
                own.append(sorted(digest(p) for p in parameters))
            own.append((digest(*batch), digest(*curvature) if curvature else None))
            if by_arm["now"] == "restless":
                torch.rand(3), np.random.rand(3), random.random()
            return step(self, batch, curvature, watch)

        monkeypatch.setattr(cls, "step", recorded)

    spied(updaters.BlockUpdater)
    spied(updaters.TorchUpdater)
    return by_arm


def digest(*tensors):
    """A hash of the bytes of some tensors."""
    content = b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)
    return hashlib.blake2b(content).hexdigest()


FOUR_ARMS = (
    "  block_hf: {<<: *hf,",
    "  restless: {<<: *hf, curvature: fisher}\n  block_hf: {<<: *hf,",
)


@pytest.mark.parametrize(
    "order",
    [("adam", "full_hf", "block_hf", "restless"), ("restless", "block_hf", "full_hf", "adam")],
)
def test_arms_begin_at_the_same_point_and_see_the_same_batches(seen, order):
    """Pairing: 50 byte-identical batches, in any order of arms and whatever an arm draws."""
    for arm in order:
        seen["now"] = arm
        outcome(arm, FOUR_ARMS, budget=Budget(updates=50), evaluate_every=50)
    del seen["now"]

    assert {len(records) for records in seen.values()} == {51}
    starts = {tuple(records[0]) for records in seen.values()}
    gradients = {tuple(batch for batch, _ in records[1:]) for records in seen.values()}
    curvatures = {arm: [batch for _, batch in records[1:]] for arm, records in seen.items()}
    assert len(starts) == len(gradients) == 1
    assert len(set(*gradients)) == 50
    assert curvatures.pop("adam") == [None] * 50
    assert curvatures["full_hf"] == curvatures["block_hf"] == curvatures["restless"]
    assert len(set(curvatures["full_hf"])) == 50


def test_the_curvature_batch_is_a_part_of_the_gradient_batch(monkeypatch):
    """As large as asked for, and every sample of it is one of the gradient batch."""
    pairs, step = [], updaters.BlockUpdater.step

    def recorded(self, batch, curvature, watch):
        pairs.append((batch[0], curvature[0]))
        return step(self, batch, curvature, watch)

    monkeypatch.setattr(updaters.BlockUpdater, "step", recorded)

    outcome("block_hf")

    assert len(pairs) == 6
    for whole, part in pairs:
        assert len(part) == len(part.unique(dim=0)) == 50
        assert all((whole == sample).all(dim=1).any() for sample in part)

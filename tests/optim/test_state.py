"""Whole state: saved, copied, scheduled, and left alone by a failure."""

import copy
import gc
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bdhf
from bdhf.optim import ModelError
from tests.messages import naming
from tests.optim.optimizers import regression


def test_state_dict_continues_bit_exactly(tmp_path):
    """Saved, loaded into a new optimizer and continued, the parameters stay the same bits."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, lr=0.4)
    for _ in range(3):
        optimizer.step(batch)
    optimizer.param_groups[0]["damping"] = 5e-3
    twin = copy.deepcopy(model)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = bdhf.BlockHessianFree(twin, F.mse_loss, lr=9.9)

    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    infos = [(optimizer.step(batch), resumed.step(batch)) for _ in range(3)]

    for info, other in infos:
        assert info == other
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_continues_like_the_original(copied):
    """A model copied together with its optimizer trains on, bit for bit, and apart from it."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step(batch)

    twin, other = copied((model, optimizer))
    infos = [(optimizer.step(batch), other.step(batch)) for _ in range(2)]

    assert all(info == two for info, two in infos)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p is not q


def test_warm_start_is_part_of_the_iteration():
    """A fresh optimizer at the same point takes another step than one that starts warm."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step(batch)
    twin = copy.deepcopy(model)

    optimizer.step(batch)
    bdhf.BlockHessianFree(twin, F.mse_loss).step(batch)

    assert not torch.equal(model[0].weight, twin[0].weight)


def test_a_model_in_another_precision_is_trained_in_it():
    """What was remembered in bfloat16 does not hold the updates of float64 there."""
    model, batch = regression()
    model.bfloat16()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, check=False)
    optimizer.step(tuple(part.bfloat16() for part in batch))
    model.double()

    optimizer.step(tuple(part.double() for part in batch))

    for parameter in model.parameters():
        direction = optimizer.state[parameter]["direction"]
        assert direction.dtype == torch.float64
        assert not torch.equal(direction, direction.bfloat16().double())


def test_a_scheduler_drives_the_learning_rate():
    """torch.optim.lr_scheduler sets the lr that the next update uses."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, lr=0.8)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)

    sizes = []
    for _ in range(3):
        sizes.append(optimizer.step(batch).step_size)
        scheduler.step()

    assert sizes == [(0.8, 0.8), (0.4, 0.4), (0.2, 0.2)]


def test_param_groups_are_the_partition():
    """A group added by hand would be a parameter without a block."""
    optimizer = bdhf.BlockHessianFree(nn.Linear(2, 1), F.mse_loss)
    with pytest.raises(TypeError, match=naming("BlockHessianFree", "param_groups")):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


@pytest.mark.parametrize("where", ["product", "loss", "damping"])
def test_an_exception_in_the_middle_leaves_everything_as_it_was(where):
    """Parameters and state are bit for bit what they were before the step that failed."""
    model, batch = regression()
    calls = {"loss": 0}

    def loss_fn(outputs, targets):
        calls["loss"] += 1
        if calls["loss"] == calls.get("fail"):
            raise RuntimeError("planted")
        return F.mse_loss(outputs, targets)

    class Rule(bdhf.Constant):
        def update(self, damping, reduction_ratio):
            if calls.get("rule"):
                raise RuntimeError("planted")
            return damping

    optimizer = bdhf.BlockHessianFree(model, loss_fn, damping=Rule(1e-3))
    optimizer.step(batch)
    parameters = [p.detach().clone() for p in model.parameters()]
    state = copy.deepcopy(optimizer.state_dict())

    def watch():
        raise RuntimeError("planted")

    calls["fail"] = calls["loss"] + 2 if where == "loss" else None  # the loss after the move
    calls["rule"] = where == "damping"
    with pytest.raises(RuntimeError, match="planted"):
        optimizer.step(batch, watch=watch if where == "product" else None)

    for p, before in zip(model.parameters(), parameters, strict=True):
        assert torch.equal(p, before)
    for key, entry in optimizer.state_dict()["state"].items():
        assert torch.equal(entry["direction"], state["state"][key]["direction"])
    assert optimizer.state_dict()["param_groups"] == state["param_groups"]


def test_training_recovers_after_an_update_that_moved_nothing():
    """The update after a poisoned batch is that of a fresh optimizer: it starts cold."""
    model, (x, y) = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step((x, y))
    optimizer.step((x, math.nan * y))
    twin = copy.deepcopy(model)

    assert optimizer.step((x, y)) == bdhf.BlockHessianFree(twin, F.mse_loss).step((x, y))


def test_autocast_does_not_reach_into_an_update():
    """Under autocast the update is that of full precision, bit for bit."""
    model, batch = regression()
    twin = copy.deepcopy(model)
    plain = bdhf.BlockHessianFree(model, F.mse_loss).step(batch)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = bdhf.BlockHessianFree(twin, F.mse_loss).step(batch)

    assert plain == inside


def test_memory_does_not_grow_over_updates():
    """After forty updates there are no more tensors than after ten, also when a step raised."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)

    def tensors_after(updates):
        for _ in range(updates):
            optimizer.step(batch)
        with pytest.raises(RuntimeError, match="planted"):
            optimizer.step(batch, watch=planted)
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    def planted():
        raise RuntimeError("planted")

    early = tensors_after(10)

    assert tensors_after(30) <= early  # fewer, where other tests left garbage behind


def test_the_state_of_a_model_of_other_shapes_is_refused():
    """It names the parameter, with both shapes; nothing moves."""
    state = trained(5).state_dict()
    optimizer = trained(6)
    optimizer.load_state_dict(state)
    before = [p.detach().clone() for p in optimizer.objective.parameters]

    with pytest.raises(ModelError, match=naming("'0.weight'", "(5, 4)", "(6, 4)")):
        optimizer.step((torch.randn(8, 4), torch.randn(8, 3)))
    for p, q in zip(optimizer.objective.parameters, before, strict=True):
        assert torch.equal(p, q)


def test_data_of_another_shape_in_a_parameter_are_refused():
    """The blocks are of the former shape."""
    optimizer = trained(5)
    first = optimizer.objective.parameters[0]
    first.data = torch.randn(6, 4)

    with pytest.raises(ModelError, match=naming("'0.weight'", "(5, 4)", "(6, 4)")):
        optimizer.step((torch.randn(8, 4), torch.randn(8, 3)))


def trained(width):
    """The optimizer of a small network after an update."""
    model = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step((torch.randn(8, 4), torch.randn(8, 3)))
    return optimizer


def test_the_state_of_another_optimizer_is_refused():
    """It has no damping; what was loaded before stays."""
    optimizer = trained(5)
    other = torch.optim.SGD(optimizer.objective.model.parameters(), lr=0.1).state_dict()
    groups = [{**other["param_groups"][0], "params": [0, 1]} for _ in optimizer.param_groups]

    with pytest.raises(ModelError, match=naming("param_groups[0]", "'damping'")):
        optimizer.load_state_dict({**other, "param_groups": groups})
    assert all(group["damping"] > 0 for group in optimizer.param_groups)

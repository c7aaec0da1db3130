"""Parameters that are no longer the model's: an error at the next step, not a step that is lost."""

import copy
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import bdhf
from bdhf.optim import ModelError
from bdhf.optim.forward.objective import Objective
from tests.messages import naming
from tests.optim.optimizers import regression


def assign(model):
    """Load other tensors in place of the parameters."""
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)


def parametrize(model):
    """Put two parameters in place of one."""
    weight_norm(model[0])


def replace_layer(model):
    """Put another layer in place of one."""
    model[2] = nn.Linear(8, 2)


def append_layer(model):
    """Add a layer."""
    model.append(nn.Linear(2, 2))


def drop_bias(model):
    """Take a parameter away."""
    model[0].bias = None


def untie(model):
    """Give a layer a copy of its weight."""
    model[0].weight = nn.Parameter(model[0].weight.detach().clone())


def convert(model):
    """Have `model.to` swap parameters, an option of torch."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model.double()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


CHANGES = [
    (assign, naming("4 added", "'0.weight'", "4 removed", "'2.bias'")),
    (
        parametrize,
        naming("2 added", "'0.parametrizations.weight.original0'", "1 removed", "'0.weight'"),
    ),
    (replace_layer, naming("2 added", "'2.weight'", "'2.bias'", "2 removed")),
    (append_layer, naming("2 added", "'3.weight'", "'3.bias'")),
    (drop_bias, naming("1 removed", "'0.bias'")),
    (untie, naming("1 added", "1 removed", "'0.weight'")),
    (convert, naming("4 added", "4 removed")),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[c.__name__ for c, _ in CHANGES])
def test_parameters_that_were_added_or_removed_are_named(change, message):
    """A step would move tensors that the model no longer reads."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step(batch)

    change(model)

    with pytest.raises(ModelError, match=message + naming("load_state_dict", "assign=True")):
        optimizer.step(batch)


def test_a_parameter_that_is_unfrozen_later_is_named():
    """It would never move."""
    model, batch = regression()
    model[0].weight.requires_grad_(False)
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step(batch)

    model[0].weight.requires_grad_(True)

    with pytest.raises(ModelError, match=naming("1 added", "'0.weight'")):
        optimizer.step(batch)


def test_a_parameter_that_is_frozen_later_is_named():
    """Its gradient would be missing."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)

    model[2].bias.requires_grad_(False)

    with pytest.raises(ModelError, match=naming("1 frozen", "'2.bias'")):
        optimizer.step(batch)


def test_values_that_are_loaded_in_place_are_accepted():
    """The parameters are the same; a frozen layer may be any."""
    model, batch = regression()
    model.append(nn.Linear(2, 2))
    model[3].requires_grad_(False)
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step(batch)

    model.load_state_dict(copy.deepcopy(model.state_dict()))
    model[3].weight = nn.Parameter(torch.eye(2), requires_grad=False)  # it is not trained

    assert optimizer.step(batch).step_norm > 0


def test_a_copy_of_model_and_optimizer_steps_on():
    """Copied together, they are of the same parameters."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step(batch)

    twin, second = copy.deepcopy((model, optimizer))

    assert second.step(batch).loss == optimizer.step(batch).loss
    assert all(
        torch.equal(p, q) for p, q in zip(twin.parameters(), model.parameters(), strict=True)
    )


def test_a_thousand_tensors_are_compared_in_milliseconds():
    """It is done at every step; a loaded machine may take ten times the usual one."""
    layers = [nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.ReLU()) for _ in range(250)]
    objective = Objective.of(nn.Sequential(*layers), F.mse_loss)

    def seconds():
        start = time.perf_counter()
        objective.check()
        return time.perf_counter() - start

    assert len(objective.parameters) == 1000
    assert min(seconds() for _ in range(20)) < 0.01

"""The peephole LSTM: its equations, torch's LSTM as a special case, every kind of derivative."""

import re

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp, vmap
from torch.testing import assert_close

from bdhf.nn import PeepholeLSTM
from tests.messages import naming

# torch's own forward-mode AD loads a function that torch deprecates
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script")


def lstm_and_inputs(n_in, hidden, layers, samples, steps, seed=0):
    """A model and a batch in float64 with weights of the order of 1."""
    generator = torch.Generator().manual_seed(seed)
    model = PeepholeLSTM(n_in, hidden, layers).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7, generator=generator)
    return model, torch.randn(samples, steps, n_in, generator=generator, dtype=torch.float64)


def as_function(model, inputs):
    """The outputs and last states as a function of the parameters, and the parameters."""
    names, values = zip(*model.named_parameters(), strict=True)

    def run(*parameters):
        outputs, (h, c) = functional_call(model, dict(zip(names, parameters, strict=True)), inputs)
        return outputs, h, c

    return run, values


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_without_peepholes_it_is_the_lstm_of_torch(layers, dtype, tol):
    """Same parameter names, shapes and outputs, once the peepholes are zero."""
    ours, inputs = lstm_and_inputs(n_in=3, hidden=5, layers=layers, samples=4, steps=11)
    ours, inputs = ours.to(dtype), inputs.to(dtype)
    theirs = nn.LSTM(3, 5, layers, batch_first=True, dtype=dtype)
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if "peephole" not in k})
    for layer in range(layers):
        nn.init.zeros_(ours.get_parameter(f"peephole_l{layer}"))

    assert_close(ours(inputs), theirs(inputs), rtol=0, atol=tol)


def test_the_gates_see_the_cell_as_the_equations_say():
    """Input and forget gates read c of the step before, the output gate reads the new c."""
    model, inputs = lstm_and_inputs(n_in=2, hidden=3, layers=2, samples=4, steps=5)
    sequence, last_h, last_c = inputs, [], []
    for layer in range(2):
        w, u, b_w, b_u, p = (
            model.get_parameter(f"{name}_l{layer}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "peephole")
        )
        rows = {gate: slice(3 * k, 3 * k + 3) for k, gate in enumerate("ifgo")}
        sees = {"i": p[:3], "f": p[3:6], "o": p[6:]}
        h = c = torch.zeros(4, 3, dtype=torch.float64)
        outputs = []
        for t in range(5):
            a = {
                gate: sequence[:, t] @ w[r].T + b_w[r] + h @ u[r].T + b_u[r]
                for gate, r in rows.items()
            }
            i = torch.sigmoid(a["i"] + sees["i"] * c)
            f = torch.sigmoid(a["f"] + sees["f"] * c)
            c = f * c + i * torch.tanh(a["g"])
            h = torch.sigmoid(a["o"] + sees["o"] * c) * torch.tanh(c)
            outputs.append(h)
        sequence = torch.stack(outputs, 1)
        last_h.append(h)
        last_c.append(c)

    expected = (sequence, (torch.stack(last_h), torch.stack(last_c)))
    assert_close(model(inputs), expected, rtol=0, atol=1e-12)


@forward_mode
def test_first_derivatives_are_those_of_finite_differences():
    """In reverse and in forward mode, and for a batch of vectors, with respect to every tensor."""
    model, inputs = lstm_and_inputs(n_in=2, hidden=2, layers=2, samples=2, steps=3)
    run, parameters = as_function(model, inputs)

    assert torch.autograd.gradcheck(run, parameters, check_forward_ad=True, check_batched_grad=True)


@forward_mode
def test_second_derivatives_are_those_of_finite_differences():
    """Reverse over reverse, and forward over reverse."""
    model, inputs = lstm_and_inputs(n_in=1, hidden=2, layers=1, samples=2, steps=2)
    run, parameters = as_function(model, inputs)

    assert torch.autograd.gradgradcheck(run, parameters, check_fwd_over_rev=True)


@forward_mode
def test_vmap_runs_it_once_for_many_directions_and_many_samples():
    """Batched tangents equal a loop over them; batched samples equal a batch."""
    model, inputs = lstm_and_inputs(n_in=2, hidden=3, layers=2, samples=4, steps=3)
    run, parameters = as_function(model, inputs)
    tangents = tuple(torch.stack([p.sin(), p.cos(), p.square()]).detach() for p in parameters)

    def push(*vectors):
        return jvp(run, parameters, vectors)[1][0]

    assert_close(
        vmap(push)(*tangents), torch.stack([push(*v) for v in zip(*tangents, strict=True)])
    )
    assert_close(vmap(lambda x: model(x[None])[0][0])(inputs), model(inputs)[0])


def test_it_runs_without_storage():
    """On the meta device it has the shapes of outputs and states."""
    with torch.device("meta"):
        outputs, (h, c) = PeepholeLSTM(2, 3, num_layers=2)(torch.zeros(4, 5, 2))

    assert (outputs.shape, h.shape, c.shape) == ((4, 5, 3), (2, 4, 3), (2, 4, 3))


def test_parameters_start_as_those_of_torch():
    """Uniform in ±1/√H; a reset draws new values."""
    model = PeepholeLSTM(100, 64)
    before = [p.clone() for p in model.parameters()]
    model.reset_parameters()

    for old, new in zip(before, model.parameters(), strict=True):
        assert not torch.equal(old, new)
        assert 0.9 / 8 < new.abs().max() <= 1 / 8


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
def test_a_size_below_one_is_refused(name):
    """The error names the size."""
    with pytest.raises(ValueError, match=naming(name, 1, 0)):
        PeepholeLSTM(**{"input_size": 2, "hidden_size": 3, "num_layers": 1, name: 0})


@pytest.mark.parametrize("shape", [(5, 2), (4, 5, 3)])
def test_inputs_of_another_shape_are_refused(shape):
    """The error has the expected shape and the actual one."""
    with pytest.raises(ValueError, match=rf"\(samples, steps, 2\).*{re.escape(str(shape))}"):
        PeepholeLSTM(2, 3)(torch.zeros(shape))

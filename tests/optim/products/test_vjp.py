"""Jᵀw back along the tape of a forward pass: what reverse mode gives, in whatever buffer it is."""

from itertools import combinations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import bdhf
from bdhf.optim.products.propagate.choose_jvp import choose_jvp
from bdhf.optim.products.propagate.jvp import TapeJVP
from bdhf.optim.products.tape.replay import Replay
from bdhf.optim.products.tape.route import route
from bdhf.optim.products.tape.tape import Tape
from bdhf.optim.products.tape.vjp_rules import PARTIAL, TRANSPOSES
from bdhf.optim.products.vjp import vjp
from bdhf.optim.vectors.layout import split_like
from tests.cases import CASES, Case, build
from tests.optim.tapes import OFF_TAPE, asked, recorded

cases = pytest.mark.parametrize("case", [c for c in CASES if (c, torch.float64) not in OFF_TAPE])


def back(tape, target, parameters, slots, w):
    """Jᵀw of some parameters by a replay, written over NaN, twice."""
    touched = [parameters[i] for i in slots]
    pulled = torch.empty(sum(p.numel() for p in touched), dtype=w.dtype)
    buffers = dict(zip(slots, split_like(pulled, touched), strict=True))
    replay = Replay(route(tape, slots, target), buffers)
    for _ in range(2):
        pulled.fill_(torch.nan)
        replay.pull(w, buffers)
    return pulled


@cases
def test_every_set_of_parameters_gets_what_reverse_mode_gives(case):
    """Each tensor alone, all but one, pairs and all, of a slim tape, in buffers that held NaN."""
    case = build(case)
    z, tape = recorded(case)
    tape.slim()
    parameters = [p for p in case.model.parameters() if p.requires_grad]
    every = tuple(range(len(parameters)))
    w = torch.randn_like(z)

    for slots in {every, *combinations(every, 1), *combinations(every, len(every) - 1),
                  *list(combinations(every, 2))[::3]} - {()}:  # fmt: skip
        exact = vjp(z, [parameters[i] for i in slots], w)
        assert_close(back(tape, tape.output, parameters, slots, w), exact, rtol=1e-9, atol=1e-12)


def sources(tape):
    """The values of a tape at which reverse mode can begin, and their operators."""
    for entry in tape.entries:
        statistics = entry.call.func not in PARTIAL  # of a norm: no derivative in reverse mode
        for value in entry.makes[:1] if statistics else entry.makes:
            made = tape.made(value)
            overwritten = made._version > 0  # then it is another value by now
            if made.grad_fn is not None and made.is_floating_point() and not overwritten:
                yield value, entry.call.func


@cases
def test_every_value_on_the_way_can_be_where_a_sweep_begins(case):
    """So the target may be a slice, a reshaped value, or one that others read as well."""
    case = build(case)
    _, tape = recorded(case)
    parameters = [p for p in case.model.parameters() if p.requires_grad]
    slots = tuple(range(len(parameters)))

    begun = list(sources(tape))
    assert begun
    for value, operator in begun:
        made = tape.made(value)
        w = torch.randn_like(made)
        exact = vjp(made, parameters, w)
        swept = back(tape, value, parameters, slots, w)
        assert_close(swept, exact, rtol=1e-9, atol=1e-11, msg=str(operator))


def test_an_operator_without_a_transpose_goes_through_reverse_mode_of_its_rule():
    """`cumsum`, which neither table has."""
    parameter = nn.Parameter(torch.randn(3, 4, dtype=torch.float64))
    tape = Tape([parameter])
    z = tape.record(lambda: parameter.cumsum(1) * 2)
    assert torch.ops.aten.cumsum.default not in TRANSPOSES
    w = torch.randn_like(z)

    pulled = back(tape, tape.output, [parameter], (0,), w)

    assert_close(pulled, 2 * w.flip(1).cumsum(1).flip(1).flatten())


def test_a_recurrent_model_goes_back_along_the_tape_and_a_short_one_along_its_graph():
    """The replay of an LSTM has half the steps of its graph; that of a plain network does not."""
    for name, short in (("peephole", True), ("mlp", False)):
        case = build(name)
        z, tape = recorded(case)
        push, _ = choose_jvp(asked(case), tape, z)
        parameters = [p for p in case.model.parameters() if p.requires_grad]
        pulled = torch.zeros(sum(p.numel() for p in parameters), dtype=z.dtype)

        assert (
            push.pull(torch.ones_like(z), dict(enumerate(split_like(pulled, parameters)))) is short
        )
        assert bool(pulled.any()) is short


def test_a_tape_that_goes_back_otherwise_than_the_graph_is_not_used_for_it(monkeypatch):
    """Such as a backward with another derivative than the operator's."""
    case = build("peephole")
    z, tape = recorded(case)
    true = TapeJVP.pull

    def wrong(self, w, buffers):
        return true(self, 2 * w, buffers)

    monkeypatch.setattr(TapeJVP, "pull", wrong)
    push, problem = choose_jvp(asked(case), tape, z)
    monkeypatch.setattr(TapeJVP, "pull", true)

    parameters = [p for p in case.model.parameters() if p.requires_grad]
    buffers = {i: torch.zeros_like(p) for i, p in enumerate(parameters)}
    assert not problem  # it still goes forward
    assert not push.pull(torch.ones_like(z), buffers)


def images(model):
    """A case of four images of two channels."""
    torch.manual_seed(0)
    batch = torch.randn(4, 2, 6, 6).double(), torch.randint(3, (4,))
    return Case(model.double(), nn.functional.cross_entropy, batch)


class Flat(nn.Module):
    """Views the memory of its images: possible with the channels first only."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(2, 3, 3), nn.Linear(48, 3)

    def forward(self, x):
        return self.linear(self.conv(x).relu().view(len(x), -1))


def test_images_are_channels_last_in_memory_where_the_model_can_take_them():
    """A pooled network can, one that views memory runs as it is; the matrices are the same."""
    from tests.oracles import dense_ggn

    pooled = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)
    )
    for model, refused in ((pooled, False), (Flat(), True)):
        case = images(model)
        G = bdhf.block_curvature(case.model, case.loss_fn, case.batch, method="propagate")

        assert G._objective.run.refused is refused
        assert "forward mode" in G.explain()
        assert_close(G.to_dense(), dense_ggn(case), rtol=0, atol=1e-12)


def test_what_a_model_refuses_in_either_layout_is_raised():
    """An image of a size that it was not made for."""
    case = images(Flat())
    wrong = torch.randn(4, 2, 7, 7).double(), case.batch[1]

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        bdhf.block_curvature(case.model, case.loss_fn, wrong)


def test_strides_that_change_in_place_are_followed():
    """`as_strided_` to other strides of axes of length 1, as pooling does it: the same value."""
    weight = nn.Parameter(torch.randn(2, 3, 1, 1, dtype=torch.float64))
    tape = Tape([weight])
    tape.record(lambda: (weight * 2).as_strided_((2, 3, 1, 1), (3, 1, 3, 3)) * 3)
    tangent = torch.randn_like(weight)

    assert not tape.problem
    assert_close(TapeJVP(tape, tape.output)({0: tangent}), 6 * tangent)


def test_a_shape_that_changes_in_place_is_a_problem():
    """A transposition in place."""
    weight = nn.Parameter(torch.randn(2, 3, dtype=torch.float64))
    tape = Tape([weight])
    tape.record(lambda: (weight * 2).t_() * 3)

    assert "aten.t_" in tape.problem

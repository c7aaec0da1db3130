"""Rules of tangents: of any strides, of operators without forward mode, and of biases alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim.products.tape import dual_numbers
from bdhf.optim.products.tape.dual_numbers import by_dual_numbers
from bdhf.optim.products.tape.jvp_rules import IN_PLACE, JVP_RULES, tangent_of
from bdhf.optim.products.tape.tape import Tape
from tests.cases import CASES, Case, build
from tests.optim.tapes import (
    FUNCTIONS,
    NO_FORWARD_MODE,
    Applied,
    recorded,
    squared,
    tensors_of,
)
from tests.oracles import cut, dense_ggn

aten = torch.ops.aten


def expanded(tensor):
    """One row for all, as the tangent of a bias is."""
    return tensor[:1].expand(tensor.shape) if tensor.dim() else tensor


def transposed(tensor):
    """Columns first in memory."""
    last = tensor.dim() - 1
    return tensor.transpose(0, last).contiguous().transpose(0, last) if last > 0 else tensor


def channels_last(tensor):
    """Channels last in memory, where there are any."""
    moved = tensor.movedim(1, -1).contiguous().movedim(-1, 1) if tensor.dim() > 2 else tensor
    return moved if tensor.dim() > 2 else transposed(tensor)


STRIDES = {"expanded": expanded, "transposed": transposed, "channels_last": channels_last}


def recorded_calls():
    """A call of every operator of the table that has a forward mode, of all models at hand."""
    torch.manual_seed(0)
    models = [build(name) for name in CASES]
    models += [squared(Applied(f), torch.randn(5, 3)) for f in FUNCTIONS.values()]
    for case in models:
        for entry in recorded(case)[1].entries:
            if entry.call.func in set(JVP_RULES) - set(IN_PLACE):
                yield entry


@pytest.mark.parametrize("strides", STRIDES)
def test_rules_take_tangents_of_any_strides(strides):
    """Every rule of the table gives what dual numbers give on contiguous tangents."""
    reached = set()
    for entry in recorded_calls():
        tangents = [
            None if read is None else STRIDES[strides](torch.randn_like(tensor).contiguous())
            for read, tensor in zip(entry.reads, tensors_of(entry.call), strict=True)
        ]
        dense = [None if t is None else t.clone(memory_format=torch.contiguous_format)
                 for t in tangents]  # fmt: skip
        before = [None if t is None else t.clone() for t in tangents]
        with torch.no_grad():
            for call in (entry.call, entry.call.slim()):
                assert_close(tangent_of(call, tangents), by_dual_numbers(entry.call, *dense))
        assert_close(tangents, before)  # none of them was written to
        reached.add(entry.call.func)

    assert reached == set(JVP_RULES) - set(IN_PLACE) - NO_FORWARD_MODE


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("operator", IN_PLACE, ids=str)
def test_rules_in_place_take_tangents_of_any_strides(operator, strides):
    """And do not write to them: an expanded one has one row in memory."""
    torch.manual_seed(0)
    values = [torch.randn(4, 3, dtype=torch.float64) for _ in range(1 + ("add_" in str(operator)))]
    dense = [torch.randn_like(value) for value in values]
    tangents = [STRIDES[strides](tangent) for tangent in dense]
    dense = [tangent.contiguous().clone() for tangent in tangents]
    plain = getattr(aten, operator._overloadpacket.__name__[:-1])
    _, expected = torch.func.jvp(plain, tuple(values), tuple(dense))
    tape = recorded_in_place(operator, values)

    assert_close(tangent_of(tape.entries[0].call, tangents), [expected])
    assert_close(tangents, dense)


def recorded_in_place(operator, values):
    """The tape of one operator that overwrites the first of its arguments."""
    tape = Tape(values[:1])
    tape.record(lambda: operator(*values))
    return tape


class WeightsAndBiases:
    """Two blocks: all weights, and all biases."""

    def __call__(self, layout):
        """Positions by the last part of the name of their slot."""
        kinds = {}
        for slot in layout.slots:
            kinds.setdefault("bias" in slot.name, []).append(slot.positions())
        return [torch.cat(parts)[None] for parts in kinds.values()]


def _net(first, flat, *shape):
    torch.manual_seed(0)
    model = nn.Sequential(first, nn.Tanh(), nn.Flatten(), nn.Linear(flat, 3))
    return model, torch.randn(4, *shape)


def _embedded():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4), nn.Flatten(), nn.Linear(12, 3))
    return model, torch.randint(0, 6, (4, 3))


class Steps(nn.Module):
    """A recurrent cell of two linear layers; the first step has no state."""

    def __init__(self):
        super().__init__()
        self.gates, self.head = nn.Linear(3, 4), nn.Linear(2, 3)

    def forward(self, x):
        h = 0
        for t in range(x.shape[1]):
            a, b = self.gates(x[:, t]).chunk(2, dim=1)
            h = h + torch.tanh(a) * torch.sigmoid(b)
        return self.head(h)


NETS = {
    "conv1d": lambda: _net(nn.Conv1d(2, 3, 2), 12, 2, 5),
    "conv1d_alone": lambda: (nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(12, 3)),
                             torch.randn(4, 2, 5)),
    "conv2d": lambda: _net(nn.Conv2d(2, 3, 2), 12, 2, 3, 3),
    "conv3d": lambda: _net(nn.Conv3d(1, 2, 2), 16, 1, 3, 3, 3),
    "conv_transpose": lambda: _net(nn.ConvTranspose1d(2, 3, 2), 12, 2, 3),
    "tokens": lambda: _net(nn.Linear(3, 4), 8, 2, 3),
    "tokens_alone": lambda: (nn.Sequential(nn.Linear(3, 4), nn.Flatten(), nn.Linear(8, 3)),
                             torch.randn(4, 2, 3)),
    "embedding": _embedded,
    "group_norm": lambda: _net(nn.Sequential(nn.Conv1d(2, 4, 2), nn.GroupNorm(2, 4)), 16, 2, 5),
    "steps": lambda: (Steps(), torch.randn(4, 3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("method", ["auto", "propagate", "layer_io"])
@pytest.mark.parametrize("net", NETS)
def test_a_block_of_biases_is_a_block_like_any_other(net, method):
    """The tangent of a bias is expanded over samples and positions, without a copy."""
    model, x = NETS[net]()
    x = x.double() if x.is_floating_point() else x
    case = Case(model.double(), F.mse_loss, (x, torch.randn(4, 3).double()))
    G = bdhf.block_curvature(
        case.model, case.loss_fn, case.batch, partition=WeightsAndBiases(), method=method
    )

    assert "reverse sweeps" not in G.explain()
    assert_close(G.to_dense(), cut(dense_ggn(case), G.blocks), rtol=0, atol=1e-10)
    assert "reverse sweeps" not in G.explain()


@pytest.mark.parametrize(
    "apply",
    [
        lambda a: aten.rsub.Tensor(torch.ones(2, 2), a, alpha=2),
        lambda a: aten.addmm.default(torch.ones(2, 2), a, torch.ones(2, 2), beta=0.5, alpha=2.0),
        lambda a: aten.baddbmm.default(torch.ones(1, 2, 2), a[None], torch.ones(1, 2, 2)),
        lambda a: aten.addcmul.default(torch.ones(2, 2), a, torch.ones(2, 2)),
        lambda a: aten.addcdiv.default(torch.ones(2, 2), a, torch.ones(2, 2)),
        lambda a: aten.index_add.default(a, 0, torch.tensor([0]), torch.ones(1, 2)),
    ],
    ids=["rsub", "addmm", "baddbmm", "addcmul", "addcdiv", "index_add"],
)
def test_operators_that_read_every_tangent_are_handed_every_tangent(apply, monkeypatch):
    """A constant operand gets a tangent of zeros where torch's rule would read one that is none."""
    made, make_dual = [], dual_numbers.fwAD.make_dual

    def counting(tensor, tangent):
        made.append(tensor)
        return make_dual(tensor, tangent)

    monkeypatch.setattr(dual_numbers.fwAD, "make_dual", counting)
    a = torch.ones(2, 2, requires_grad=True)
    tape = Tape([a])
    tape.record(lambda: apply(a))
    call, reads = tape.entries[-1].call, tape.entries[-1].reads
    tangent_of(call, [None if read is None else torch.ones_like(call.result) for read in reads])

    operands = [x for x in call.args if isinstance(x, torch.Tensor) and x.is_floating_point()]
    assert len(made) == len(operands)

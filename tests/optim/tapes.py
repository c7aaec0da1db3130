"""Models with a tape of their forward pass: what is on it, and what no rule serves."""

import torch
from torch import nn
from torch.nn import functional as F

import bdhf
from bdhf.optim.forward.objective import Objective
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import Settings, Workspace
from bdhf.optim.products.request import Request
from bdhf.optim.products.tape.tape import Tape
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.vectors.layout import layout_of
from tests.cases import Case

aten = torch.ops.aten

#: What no rule serves, by case and dtype; every other case is on the tape in both.
OFF_TAPE = {
    ("lstm", torch.float64): "aten.sigmoid_.default",
    ("lstm", torch.float32): "mkldnn_rnn_layer",
    ("gru", torch.float64): "aten.add_.Tensor",
    ("gru", torch.float32): "aten.add_.Tensor",
}

#: Operators with a rule that torch itself has no forward mode of (`test_fallbacks.py`).
NO_FORWARD_MODE = {aten._embedding_bag.default, aten._cdist_forward.default}


def asked(case, partition=None, curvature=None, products=30, **settings):
    """A request for products of a case."""
    blocks = cut(layout_of(case.model), partition or bdhf.Full())
    return Request(
        Objective.of(case.model, case.loss_fn), case.batch, curvature or bdhf.GGN(), blocks,
        torch.Generator().manual_seed(0), Flops(), Settings(**settings), Workspace(), products,
    )  # fmt: skip


def recorded(case):
    """The outputs of a case, and the tape of its forward pass."""
    objective = Objective.of(case.model, case.loss_fn)
    tape = Tape(objective.parameters)
    return tape.record(lambda: objective.outputs(case.batch[0])), tape


def squared(model, x):
    """A case of squared error against zero, in float64."""
    model, x = model.double(), x.double()
    return Case(model, F.mse_loss, (x, torch.zeros_like(model(x))))


class Applied(nn.Module):
    """A function of the outputs of a linear layer, between it and another one."""

    def __init__(self, function, inputs=3, hidden=4, outputs=None):
        super().__init__()
        self.first, self.function = nn.Linear(inputs, hidden), function
        self.last = nn.Linear(outputs or hidden, 2)

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def tensors_of(call):
    """The tensor arguments of a call, in order."""
    leaves = torch.utils._pytree.tree_leaves((call.args, dict(call.kwargs)))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


#: Functions of (5, 4) that run the operators that the cases do not.
FUNCTIONS = {
    "expand": lambda h: h[:, None].expand(-1, 3, -1).reshape(5, -1)[:, :4],
    "expanded_without_a_rule": lambda h: F.gelu(h[:1].expand(5, 4)) + F.gelu(h),
    "squeeze": lambda h: (h[:, None].tanh().squeeze()[None] * h).squeeze((0,)).squeeze(0),
    "slices": lambda h: torch.cat([h[1:4], h[:2]]) + h.split([1, 4])[1].sum(),
    "sums": lambda h: h + h.sum() - h.sum(0) * h.mean() - 2 * -h.mean(0, keepdim=True),
    "one_part_constant": lambda h: torch.cat([h[:, :2], torch.ones(5, 2, dtype=h.dtype)], 1),
    "quotients": lambda h: h / 3 + h / torch.tensor([1.0, 2, 3, 4]) + aten.div.Scalar(h, 4),
    "quotient_of_values": lambda h: h / (2 + h * h),
    "softmax": lambda h: torch.softmax(h, 1) * h.softmax(0),
    "pad": lambda h: F.pad(h, (1, 1))[:, 1:5],
    "pools": lambda h: (
        F.adaptive_avg_pool2d(h.view(1, 1, 5, 4), (5, 2)).view(5, 2).repeat(1, 2) * h
        + F.avg_pool2d(h.view(5, 1, 2, 2), 2).view(5, 1)
    ),
    "casts": lambda h: h.to(torch.float32).double() * h,
    "scaled_sums": lambda h: torch.add(h, h.tanh(), alpha=2) - torch.sub(h, h.sigmoid(), alpha=3),
    "numbers": lambda h: (1 + h) * 2 - (3 - h) * h.relu() + (h - 1),
    "broadcast": lambda h: h[:, :1] * h + h[0] - h[:, :1].tanh() * 0.5 + torch.ones(1).to(h) * h,
    "square": lambda h: h * h + h.mul(h.t().t()),
    "products": lambda h: h @ (h.t() @ h) + torch.bmm(h[None], h.t()[None] @ h[None])[0],
    "scaled_addmm": lambda h: torch.addmm(h, h @ h.t(), h, beta=2, alpha=0.5),
    "a_value_many_times": lambda h: (a := h.tanh()) + (b := a * a) + b * a + b.sigmoid() * a,
    "bias_alone": lambda h: torch.addmm(h[0], torch.ones(5, 4).to(h), torch.ones(4, 4).to(h)),
    "convolution_of_values": lambda h: F.conv1d(h.view(1, 5, 4), h.view(4, 5, 1), h[:, 0][:4])[0]
    .t()
    .sum(1, keepdim=True)
    .sum()
    + h,
}  # fmt: skip


class Reversal(torch.autograd.Function):
    """The identity, by a view, with a derivative of -1."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -grad

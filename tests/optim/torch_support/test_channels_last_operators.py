"""Operators that are given images channels-last are right so: in value, gradients and tangents."""

from itertools import product

import pytest
import torch
from torch.autograd import forward_ad
from torch.nn import functional as F

from bdhf.optim.torch_support.channels_last_operators import (
    VERIFIED,
    aten,
    is_verified,
    like_channels_last,
)
from bdhf.optim.torch_support.dispatch import DispatchMode

#: (N, C, rows, columns): one image, one channel, odd sizes.
SHAPES = [(1, 4, 5, 7), (3, 1, 6, 5), (2, 3, 7, 6)]

#: Relative differences that are rounding.
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-13}

#: Of the images and of the gradient: whether it is channels-last.
ORDERS = [(True, True), (True, False), (False, True)]


def alone(function):
    """An operator of images alone."""
    return function, lambda n, c, h, w: []


def beside(function, shape=None):
    """An operator of images and a tensor of their shape, or of another one."""
    return function, lambda *size: [shape(*size) if shape else size]


def convolution(kernel, out=lambda c: 2 * c, groups=lambda c: 1, bias=True, **how):
    """A convolution of images; its channels are given by functions of those of the images."""

    def call(x, weight, *bias):
        return F.conv2d(x, weight, *bias, groups=groups(x.shape[1]), **how)

    def shapes(n, c, h, w):
        return [(out(c), c // groups(c), *kernel), *([(out(c),)] if bias else [])]

    return call, shapes


def halves(c):
    """Two groups where there are as many channels."""
    return 1 if c % 2 else 2


def batch_norm(x, weight, bias):
    """With statistics that are held."""
    mean, variance = bias.detach(), weight.detach().abs() + 0.5
    return F.batch_norm(x, mean, variance, weight, bias)


CASES = {
    "conv": convolution((3, 3), padding=1),
    "conv without bias": convolution((3, 3), bias=False),
    "conv with stride": convolution((3, 3), stride=2, padding=1),
    "conv of one pixel": convolution((1, 1)),
    "conv of one pixel in groups": convolution((1, 1), groups=halves, out=lambda c: 4 * c),
    "conv of patches": convolution((2, 2), stride=2),
    "conv of a row": convolution((1, 3), stride=(2, 1)),
    "conv of a column": convolution((3, 1), stride=(1, 3)),
    "conv with holes": convolution((3, 3), padding=2, dilation=2),
    "conv with wide margins": convolution((5, 5), padding=4),
    "conv of every channel": convolution((3, 3), out=lambda c: c, groups=lambda c: c),
    "conv in groups": convolution((3, 3), out=lambda c: 4 * c, groups=halves),
    "conv to one channel": convolution((3, 3), out=lambda c: 1),
    "batch norm": (batch_norm, lambda n, c, h, w: [(c,), (c,)]),
    "linear in the images": (
        lambda x, weight, bias: F.linear(x.flatten(1), weight, bias),
        lambda n, c, h, w: [(3, c * h * w), (3,)],
    ),
    "linear in the channels": beside(
        lambda x, weight: F.linear(x.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2),
        lambda n, c, h, w: (3, c),
    ),
    "tokens": beside(
        lambda x, weight: F.linear(x.flatten(2).transpose(1, 2), weight),
        lambda n, c, h, w: (3, c),
    ),
    "bmm": alone(lambda x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2))),
    "relu": alone(F.relu),
    "relu in place": alone(lambda x: F.relu(2 * x, inplace=True)),
    "tanh": alone(torch.tanh),
    "sigmoid": alone(torch.sigmoid),
    "gelu": alone(F.gelu),
    "silu": alone(F.silu),
    "softplus": alone(F.softplus),
    "elu": alone(F.elu),
    "leaky relu": alone(F.leaky_relu),
    "hardtanh": alone(F.hardtanh),
    "mish": alone(F.mish),
    "hardswish": alone(F.hardswish),
    "exp": alone(torch.exp),
    "abs, sqrt": alone(lambda x: (x.abs() + 1).sqrt()),
    "neg": alone(torch.neg),
    "cube": alone(lambda x: x**3),
    "clamp": alone(lambda x: x.clamp(-0.5, 0.5)),
    "add": beside(torch.add),
    "add in place": beside(lambda x, y: (2 * x).add_(y)),
    "add a channel's": beside(torch.add, lambda n, c, h, w: (c, 1, 1)),
    "sub": beside(torch.sub),
    "mul": beside(torch.mul),
    "mul by a channel's": beside(torch.mul, lambda n, c, h, w: (n, c, 1, 1)),
    "div": beside(lambda x, y: x / (y.abs() + 1)),
    "max pool": alone(lambda x: F.max_pool2d(x, 3, 2, 1)),
    "max pool to the end": alone(lambda x: F.max_pool2d(x, 2, ceil_mode=True)),
    "average pool": alone(lambda x: F.avg_pool2d(x, 2, ceil_mode=True)),
    "average pool of what is there": alone(
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    ),
    "pool to one pixel": alone(lambda x: F.adaptive_avg_pool2d(x, 1)),
    "pool to a size": alone(lambda x: F.adaptive_avg_pool2d(x, (2, 3))),
    "mean": alone(torch.mean),
    "mean of pixels": alone(lambda x: x.mean((2, 3))),
    "sum of channels": alone(lambda x: x.sum(1)),
    "softmax of channels": alone(lambda x: x.softmax(1)),
    "log softmax of channels": alone(lambda x: x.log_softmax(1)),
    "nearest": alone(lambda x: F.interpolate(x, scale_factor=2)),
    "bilinear": alone(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "cat": beside(lambda x, y: torch.cat([x, y], 1), lambda n, c, h, w: (n, 2, h, w)),
    "stack": beside(lambda x, y: torch.stack([x, y], 1).sum(1)),
    "chunk": alone(lambda x: torch.cat(torch.cat([x, 2 * x], 1).chunk(2, 1)[::-1], 1)),
    "split": alone(lambda x: x.split([2, x.shape[2] - 2], 2)[1]),
    "slice": alone(lambda x: x[:, :, 1:, ::2]),
    "select": alone(lambda x: x[:, 0]),
    "unbind": alone(lambda x: x.unbind(1)[0]),
    "pad": alone(lambda x: F.pad(x, (1, 2, 0, -1))),
    "reflect": alone(lambda x: F.pad(x, (1, 1, 1, 1), "reflect")),
    "replicate": alone(lambda x: F.pad(x, (1, 1, 1, 1), "replicate")),
    "shuffle": alone(lambda x: F.pixel_shuffle(torch.cat([x] * 4, 1), 2)),
    "unshuffle": alone(lambda x: F.pixel_unshuffle(x[:, :, :4, :4], 2)),
    "flip": alone(lambda x: x.flip(3)),
    "expand": alone(lambda x: x.unsqueeze(1).expand(-1, 2, -1, -1, -1).sum(1)),
    "squeeze": alone(lambda x: 2 * x.unsqueeze(1).squeeze(1)),
    "in the usual order": alone(lambda x: x.contiguous()),
    "in that precision": alone(lambda x: x.to(torch.float32)),
    "detached": beside(lambda x, y: x.detach() * y),
}


def ordered(tensor, channels_last):
    """An image in one of the two orders; anything else as it is."""
    if tensor.dim() != 4:
        return tensor
    order = torch.channels_last if channels_last else torch.contiguous_format
    return tensor.to(memory_format=order)


def derivatives(function, inputs, wanted, images_last, gradient_last):
    """Outputs, gradients of the wanted inputs; where all are wanted, tangents and second ones."""
    draws = torch.Generator().manual_seed(1)

    def like(tensor):
        drawn = torch.randn(tensor.shape, generator=draws, dtype=torch.float64)
        return ordered(drawn.to(tensor.dtype), gradient_last)

    leaves = [
        ordered(tensor, images_last).detach().requires_grad_(wants)
        for tensor, wants in zip(inputs, wanted, strict=True)
    ]
    sources = [leaf for leaf in leaves if leaf.requires_grad]
    outputs = function(*leaves)
    if not outputs.requires_grad:
        return [outputs]
    cotangent = like(outputs).requires_grad_()
    gradients = torch.autograd.grad(
        outputs, sources, cotangent, create_graph=True, materialize_grads=True, allow_unused=True
    )
    made = [outputs, *gradients]
    if not all(wanted):
        return made
    again = [gradient for gradient in gradients if gradient.requires_grad]
    made += torch.autograd.grad(
        again, [cotangent, *sources], [like(gradient) for gradient in again],
        materialize_grads=True, allow_unused=True,
    )  # fmt: skip
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(leaf.detach(), like(leaf)) for leaf in leaves]
        made.append(forward_ad.unpack_dual(function(*duals)).tangent)
    return made


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, as it loads its rules
@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_the_same_in_either_order(name):
    """Whichever gradients are requested, and in whichever order they arrive."""
    function, others = CASES[name]
    torch.manual_seed(0)
    for shape, (dtype, tolerance) in product(SHAPES, TOLERANCES.items()):
        inputs = [torch.randn(size, dtype=dtype) for size in (shape, *others(*shape))]
        for wanted in product([True, False], repeat=len(inputs)):
            expected = derivatives(function, inputs, wanted, False, False)
            for order in ORDERS:
                made = derivatives(function, inputs, wanted, *order)
                for ours, theirs in zip(made, expected, strict=True):
                    assert (ours - theirs).norm() <= tolerance * theirs.norm() + tolerance


class Seen(DispatchMode):
    """Notes operators, and whether all are verified as they are called."""

    def __init__(self):
        super().__init__()
        self.operators, self.unverified = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [result] if isinstance(result, torch.Tensor) else list(result)
        self.operators.add(func)
        if not is_verified(func, args, made):
            self.unverified.add(func)
        return result


def seen(function, others, shape=(2, 4, 7, 6)):
    """The operators of one of the cases, channels-last."""
    torch.manual_seed(0)
    images, *rest = (torch.randn(size) for size in (shape, *others(*shape)))
    with Seen() as operators:
        function(ordered(images, True), *rest)
    return operators


def test_no_operator_is_on_the_list_that_is_not_compared():
    """The cases run every one of them, and nothing else but strides of a single pixel."""
    every = [seen(*case) for case in CASES.values()]
    compared = set().union(*(operators.operators for operators in every))
    unverified = set().union(*(operators.unverified for operators in every))

    assert compared >= VERIFIED
    assert unverified == {aten.as_strided_.default}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.group_norm(x, 2),
        lambda x: F.instance_norm(x),
        lambda x: F.layer_norm(x, x.shape[1:]),
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: F.conv_transpose2d(x, x.new_ones(x.shape[1], 2, 3, 3)),
        lambda x: F.conv3d(x[None], x.new_ones(2, len(x), 1, 3, 3)),
        lambda x: x.as_strided((2, 3), (3, 1)),
        lambda x: x.half() + 1,
        lambda x: torch.fft.fft(x),
    ],
)
def test_what_was_not_compared_is_not_verified(function):
    """Norms, transposed convolutions, memory by strides, and other precisions."""
    assert seen(function, lambda *size: []).unverified


def test_the_order_is_detected_as_by_torch():
    """By strides, also where one channel or one pixel is contiguous in both orders."""
    for shape in [(2, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (1, 1, 1, 1), (1, 3, 4, 5)]:
        for order in (torch.contiguous_format, torch.channels_last):
            images = torch.empty(shape, memory_format=order)
            assert like_channels_last(images) == (
                torch._prims_common.suggest_memory_format(images) == torch.channels_last
            )
    assert like_channels_last(torch.empty(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d))
    assert not like_channels_last(torch.empty(4, 5, 3).transpose(0, 2))
    assert like_channels_last(torch.empty(36, 4).t().view(1, 4, 6, 6))  # what is made of it is

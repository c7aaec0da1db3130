"""Images channels-last: which models get them so, and which kernels never do."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import bdhf
from bdhf.optim.errors import ModelError
from bdhf.optim.forward.image_layout import ImageLayout
from bdhf.optim.forward.objective import Objective
from bdhf.optim.products.forecast import CHANNELS_LAST
from bdhf.optim.torch_support.channels_last_operators import (
    like_channels_last,
    needs_channels_first,
)
from bdhf.optim.torch_support.dispatch import DispatchMode
from bdhf.optim.torch_support.flops import Flops
from bdhf.problems.resnet import ResNet
from tests.cases import Case
from tests.oracles import dense_ggn, dense_hessian


class Kernels(DispatchMode):
    """Notes for every call of the kernels that torch gets wrong whether it was channels-last."""

    def __init__(self):
        super().__init__()
        self.orders = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if needs_channels_first(func, args):
            self.orders.append(any(map(like_channels_last, args[:2])))
        return func(*args, **(kwargs or {}))


class Between(nn.Module):
    """A convolution, what is given, and a classifier of pooled channels."""

    def __init__(self, middle, last=6):
        super().__init__()
        self.conv, self.middle = nn.Conv2d(2, 4, 3, padding=1), middle
        self.again, self.linear = nn.Conv2d(4, 6, 3), nn.Linear(last, 3)

    def forward(self, x):
        return self.linear(self.again(self.middle(self.conv(x)).relu()).mean((2, 3)))


class Call(nn.Module):
    """A function as a module, with a weight of a shape where it takes one."""

    def __init__(self, function, *shape):
        super().__init__()
        self.function = function
        if shape:
            self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return self.function(x, *self.parameters())


class Twice(torch.autograd.Function):
    """An operator with a backward pass in Python."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def by_strides(x):
    """Every entry twice, where it lies in memory channels first."""
    _, c, h, w = x.shape
    return 2 * torch.as_strided(x, x.shape, (c * h * w, h * w, w, 1))


def shortcut(x, weight):
    """A convolution of one pixel with a stride, as a function."""
    return F.conv2d(x, weight, stride=2)


VERIFIED = {
    "relu": lambda: nn.ReLU(),
    "gelu": lambda: nn.GELU(),
    "pools": lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1)),
    "batch norm in eval mode": lambda: nn.BatchNorm2d(4).eval(),
    "every channel alone": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "module with stride": lambda: nn.Conv2d(4, 4, 1, stride=2),
    "function with stride": lambda: Call(shortcut, 4, 4, 1, 1),
}
NOT_VERIFIED = {
    "group norm": lambda: nn.GroupNorm(2, 4),
    "group norm as a function": lambda: Call(lambda x: F.group_norm(x, 2)),
    "instance norm": lambda: nn.InstanceNorm2d(4, affine=True),
    "instance norm as a function": lambda: Call(F.instance_norm),
    "layer norm": lambda: nn.LayerNorm([4, 6, 6]),
    "local response norm": lambda: nn.LocalResponseNorm(2),
    "transposed convolution": lambda: nn.ConvTranspose2d(4, 4, 3, padding=1),
    "memory by strides": lambda: Call(by_strides),
    "a way back in Python": lambda: Call(Twice.apply),
    "a part that is run again": lambda: Call(
        lambda x: checkpoint(torch.tanh, x, use_reentrant=False)
    ),
}
EVERY = VERIFIED | NOT_VERIFIED


def case_of(model, samples=3):
    """A model with a few images and labels, in float64."""
    torch.manual_seed(0)
    images = torch.randn(samples, 2, 6, 6, dtype=torch.float64)
    return Case(model.double(), F.cross_entropy, (images, torch.arange(samples) % 3))


def between(name, **how):
    """One of the cases, with parameters of a fixed seed."""
    torch.manual_seed(1)
    return case_of(Between(EVERY[name]()), **how)


def cut(matrix, blocks):
    """A matrix without what lies between its blocks."""
    kept = torch.zeros_like(matrix)
    for block in blocks:
        kept[block[:, None], block] = matrix[block[:, None], block]
    return kept


PARTITIONS = (bdhf.PerLayer(), bdhf.Random(blocks=3, seed=0))


def check_products(case, exact=None, partitions=PARTITIONS, **how):
    """Products of every block are those of the dense matrix, or of another that is right."""
    exact = dense_ggn(case) if exact is None else exact
    for partition in partitions:
        G = bdhf.block_curvature(case.model, case.loss_fn, case.batch, partition=partition, **how)
        v = torch.randn(len(exact), dtype=exact.dtype)
        assert_close(G @ v, cut(exact, G.blocks) @ v, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", EVERY)
def test_models_of_verified_operators_get_images_channels_last(name):
    """And no other does, at any number of samples."""
    for samples in (1, 3):
        case = between(name, samples=samples)
        layout = ImageLayout(case.model)

        assert layout.applies(case.batch[0]) is (name in VERIFIED), layout.decisions
        assert layout.refused is False


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("name", EVERY)
def test_products_are_right_in_the_order_that_was_chosen(name, samples):
    """Under blocks of layers and blocks that cut through them."""
    check_products(between(name, samples=samples), method="propagate")


@pytest.mark.parametrize(
    "name", ["group norm", "instance norm", "function with stride", "batch norm in eval mode"]
)
def test_products_are_right_for_groups_of_layers(name):
    """A block with the norm and another around it."""
    groups = bdhf.Groups([["conv.*", "again.*"], ["middle.*", "linear.*"]])

    check_products(between(name), partitions=[groups], method="propagate")


@pytest.mark.parametrize("frozen", ["conv", "middle", "again"])
@pytest.mark.parametrize(
    "name", ["group norm", "instance norm", "function with stride", "batch norm in eval mode"]
)
def test_products_are_right_with_a_layer_frozen(name, frozen):
    """A backward pass for some of its gradients only."""
    case = between(name)
    getattr(case.model, frozen).requires_grad_(False)

    check_products(case, method="propagate")


@pytest.mark.parametrize("name", ["group norm", "instance norm", "module with stride"])
def test_products_with_the_hessian_are_right(name):
    """They run the same forward pass."""
    case = between(name)

    check_products(case, dense_hessian(case), curvature=bdhf.Hessian())


def test_the_residual_network_gets_images_channels_last():
    """Also in updates, where every shortcut gets its images channels first."""
    problem = ResNet(channels=(2, 4), downsample=2)
    model, images = problem.build(), problem.example(4)[0]
    objective = Objective.of(model, problem.loss)

    with Kernels() as kernels:
        objective.outputs(images)

    assert objective.run.applies(images)
    assert kernels.orders == [False]


@pytest.mark.parametrize("side", [1, 6])
@pytest.mark.parametrize("name", ["module with stride", "function with stride"])
def test_convolutions_of_one_pixel_with_a_stride_get_channels_first(name, side):
    """Images of one pixel too, which are contiguous in both orders."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), EVERY[name](), nn.Conv2d(4, 3, 1))
    images = torch.randn(5, 2, side, side)
    layout = ImageLayout(model)

    with Kernels() as kernels:
        outputs = layout(images)

    assert layout.applies(images)
    assert kernels.orders == [False]
    assert_close(outputs, model(images))


def turned(x):
    """Images channels-last by the model's own will."""
    return x.to(memory_format=torch.channels_last)


def tokens(x):
    """Images as attention gives them back: a transposed sequence of pixels."""
    n, c, h, w = x.shape
    return x.flatten(2).transpose(1, 2).contiguous().transpose(1, 2).view(n, c, h, w)


def norms(kind):
    """The norm of an image, with its gradient from a convolution."""
    return {"group": nn.GroupNorm(2, 4), "instance": nn.InstanceNorm2d(4, affine=True)}[kind]


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kind", ["group", "instance"])
@pytest.mark.parametrize("reorder", [turned, tokens])
def test_a_norm_is_given_channels_first_whatever_the_model_makes(reorder, kind, samples):
    """The matrix is that of the same model without another order."""
    torch.manual_seed(1)
    plain = case_of(Between(norms(kind)), samples)
    torch.manual_seed(1)
    model = Between(nn.Sequential(Call(reorder), norms(kind), Call(reorder))).double()
    case = Case(model, plain.loss_fn, plain.batch)
    model.load_state_dict(
        dict(zip(model.state_dict(), plain.model.state_dict().values(), strict=True))
    )
    objective = Objective.of(model, case.loss_fn)

    assert not objective.run.applies(case.batch[0])
    with Kernels() as kernels:
        objective.outputs(case.batch[0])
    assert kernels.orders == [False]
    for method in ("propagate", "layer_io"):
        check_products(case, dense_ggn(plain), method=method)


@pytest.mark.parametrize("name", ["group norm", "instance norm", "module with stride", "relu"])
def test_a_model_converted_to_channels_last_has_right_products(name):
    """`model.to(memory_format=torch.channels_last)` makes every convolution give images so."""
    case = between(name, samples=1)
    exact = dense_ggn(case)
    converted = Case(case.model.to(memory_format=torch.channels_last), case.loss_fn, case.batch)
    objective = Objective.of(converted.model, case.loss_fn)

    assert objective.run.decide(case.batch[0]).guarded is (name != "relu")
    with Kernels() as kernels:
        objective.outputs(case.batch[0])
    assert not any(kernels.orders)
    check_products(converted, exact, method="propagate")


@pytest.mark.parametrize("name", ["group norm", "relu"])
def test_images_that_come_channels_last_are_the_same_images(name):
    """The model decides in which order it gets them."""
    case = between(name)
    images, labels = case.batch
    inputs_last = turned(images)
    seen = []
    case.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    G = bdhf.block_curvature(case.model, case.loss_fn, (inputs_last, labels), method="propagate")
    v = torch.randn(G.shape[0], dtype=images.dtype)

    assert like_channels_last(seen[-1]) is (name == "relu")
    assert_close(G @ v, dense_ggn(case) @ v, rtol=0, atol=1e-11)


@pytest.mark.parametrize("batch", [(torch.randn(3, 2, 6, 6),), {"x": torch.randn(3, 2, 6, 6)}])
def test_images_within_other_inputs_are_put_channels_first(batch):
    """A tuple or a mapping of inputs."""
    images = {"x": turned(batch["x"])} if isinstance(batch, dict) else (turned(batch[0]),)
    ((inputs, _),) = bdhf.optim.forward.batches.micro_batches((images, torch.zeros(3)))
    (image,) = inputs.values() if isinstance(inputs, dict) else inputs

    assert type(inputs) is type(batch)
    assert not like_channels_last(image)


@pytest.mark.parametrize(
    "norm",
    [
        lambda x: torch.ops.aten.native_group_norm(x, None, None, len(x), 4, 36, 2, 1e-5)[0],
        lambda x: checkpoint(lambda y: F.group_norm(y, 2), x, use_reentrant=False),
    ],
    ids=["out of reach", "run again in the backward pass"],
)
def test_a_norm_that_cannot_be_given_channels_first_is_refused(norm, monkeypatch):
    """The error names the operator and what to do; there is no backward pass through it."""
    monkeypatch.setattr(
        "bdhf.optim.torch_support.channels_last.ChannelsFirst.__torch_function__",
        lambda self, func, types, args=(), kwargs=None: func(*args, **(kwargs or {})),
    )
    case = case_of(Between(nn.Sequential(Call(turned), Call(norm))))

    with pytest.raises(ModelError, match=r"native_group_norm.*contiguous_format"):
        bdhf.block_curvature(case.model, case.loss_fn, case.batch)


def test_preconditioner_and_check_of_a_converted_model_are_right():
    """Squared gradients run the model by other means, and suspects run its modules."""
    case = between("group norm")
    case.model.to(memory_format=torch.channels_last)
    solver = bdhf.CG(preconditioner=bdhf.Martens())
    optimizer = bdhf.BlockHessianFree(
        case.model, case.loss_fn, solver=solver, damping=bdhf.Constant(1.0)
    )

    losses = [optimizer.step(case.batch).loss for _ in range(3)]

    assert losses[2] < losses[0]


class Fork(nn.Module):
    """Branches where its images are bright, or by a flag."""

    def __init__(self, by_images=False):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(2, 4, 3), nn.Linear(4, 3)
        self.norm, self.by_images, self.bright = nn.GroupNorm(2, 4), by_images, 0

    def forward(self, x):
        h = self.conv(x)
        if (self.by_images and x.mean() > 0) or self.bright:
            h = self.norm(h)
        return self.linear(h.mean((2, 3)))


def test_a_model_that_looks_at_its_values_is_not_verified():
    """What it does for other images of the shape is not known."""
    assert not ImageLayout(Fork(by_images=True)).applies(-torch.rand(3, 2, 6, 6))


def test_another_way_through_the_model_is_seen():
    """A pass with other operators than the one that decided is run again, channels first."""
    torch.manual_seed(0)
    layout, images, orders = ImageLayout(Fork()), torch.rand(3, 2, 6, 6), []
    layout.model.norm.register_forward_pre_hook(
        lambda _, inputs: orders.append(like_channels_last(inputs[0]))
    )
    assert layout.applies(images)

    layout.model.bright = 1  # a number is no flag
    outputs = layout(images)

    assert orders == [True, False]  # the first forward only: its graph is dropped
    assert not layout.applies(images)
    assert_close(outputs, layout.model(images))


def test_another_way_counts_without_gradients_too():
    """There is no graph to compare then, so what a pass with one showed decides."""
    layout, images = ImageLayout(Fork()), torch.rand(3, 2, 6, 6)
    with torch.no_grad():
        assert layout.applies(images)
    layout(images)
    layout.model.bright = 1  # a number is no flag

    layout(images)

    with torch.no_grad():
        assert not layout.applies(images)


class Drawing(nn.Module):
    """Draws, and counts its passes in a buffer and in a buffer that is replaced."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        self.replaced = self.replaced + 1
        return self.conv(x).mean((2, 3)) + torch.randn(())


def test_the_decision_leaves_no_trace():
    """Neither in buffers nor in random numbers nor in the meter."""
    torch.manual_seed(0)
    decided, plain, images = Drawing(), Drawing(), torch.randn(3, 2, 6, 6)
    plain.load_state_dict(decided.state_dict())
    state, flops, expected = torch.get_rng_state(), Flops(), Flops()

    with flops.counting("forward"):
        outputs = ImageLayout(decided)(images)
    after = torch.get_rng_state()
    torch.set_rng_state(state)

    with expected.counting("forward"):
        plainly = plain(images)
    assert_close(outputs, plainly)
    assert flops.spent == expected.spent > 0
    assert torch.equal(after, torch.get_rng_state())
    assert decided.passes == decided.replaced == 1


@pytest.mark.parametrize(("name", "saved"), [("relu", CHANNELS_LAST), ("group norm", 1.0)])
def test_the_forecast_counts_on_what_was_chosen(name, saved, monkeypatch):
    """What channels-last saves propagation, and nothing where it is not taken."""
    expected = []
    for factor in (CHANNELS_LAST, 1.0):
        monkeypatch.setattr("bdhf.optim.products.forecast.CHANNELS_LAST", factor)
        case = between(name)
        G = bdhf.block_curvature(case.model, case.loss_fn, case.batch)
        expected.append(float(G.explain().split("×")[-1].split(";")[0]))

    assert expected[0] == pytest.approx(saved * expected[1], rel=0.1)


def test_shapes_and_modes_decide_again():
    """One decision for each, and no more passes for those that were seen."""
    case, passes = between("relu"), []
    case.model.register_forward_pre_hook(lambda *_: passes.append(1))
    layout, images = ImageLayout(case.model), case.batch[0]

    counts = []
    for inputs in (images, images, images[:2], images[:2]):
        passes.clear()
        layout(inputs)
        counts.append(len(passes))

    assert counts == [3, 1, 3, 1]


def test_updates_of_a_group_norm_network_reduce_the_loss():
    """With the defaults, a check included."""
    case = between("group norm")
    optimizer = bdhf.BlockHessianFree(case.model, case.loss_fn, damping=bdhf.Constant(1.0))

    losses = [optimizer.step(case.batch).loss for _ in range(3)]

    assert all(map(math.isfinite, losses))
    assert losses[2] < losses[0]

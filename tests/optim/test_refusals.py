"""What the optimizer refuses, and what moves nothing."""

import math
import warnings

import pytest
import torch
from torch import nn
from torch.distributed import fsdp
from torch.nn import functional as F
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils.parametrizations import spectral_norm

import bdhf
from bdhf.experiments.parts.tables import SOLVERS
from bdhf.optim import CurvatureError, ModelError, ModelTypeError, Stop
from tests.messages import naming
from tests.optim.optimizers import regression


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_moves_nothing_and_says_so(value):
    """A NaN is detected where it arises: the parameters stay finite, the info reports it."""
    model, (x, y) = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    optimizer.step((x, y))
    before = [p.detach().clone() for p in model.parameters()]

    info = optimizer.step((x, torch.full_like(y, value)))

    assert not math.isfinite(info.loss)
    assert set(info.stop) == {Stop.NONFINITE}
    for p, q in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, q)


def test_a_gradient_that_is_not_finite_in_one_block_moves_no_block():
    """With one NaN layer the others do not step alone."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    def hook(gradient):
        return torch.full_like(gradient, math.nan)

    model[1].bias.register_hook(hook)
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    before = [p.detach().clone() for p in model.parameters()]

    info = optimizer.step(
        (torch.ones(3, 2), torch.ones(3, 2)), (torch.ones(1, 2), torch.ones(1, 2))
    )

    assert math.isfinite(info.loss)
    assert math.isnan(info.grad_norm)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_an_update_that_cannot_move_makes_no_product(solver):
    """Nothing is solved for a gradient that is no number, from a warm start neither."""
    model, (x, y) = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, solver=solver())
    optimizer.step((x, y))

    assert optimizer.step((x, math.nan * y)).products == 0


def test_an_empty_curvature_batch_moves_nothing():
    """Without curvature there is no quadratic model to step by."""
    model, (x, y) = regression()
    before = [p.detach().clone() for p in model.parameters()]

    info = bdhf.BlockHessianFree(model, F.mse_loss).step((x, y), (x[:0], y[:0]))

    assert set(info.stop) == {Stop.NONFINITE}
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_parameters_frozen_later_are_refused():
    """A changed requires_grad would shift the vector under the blocks: it is an error."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    model[0].requires_grad_(False)

    with pytest.raises(ValueError, match=naming("frozen", "'0.weight'", "'0.bias'")):
        optimizer.step(batch)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.BatchNorm1d(8), naming("'1' (BatchNorm1d)", "eval", "GroupNorm")),
        (nn.SyncBatchNorm(8), naming("'1' (SyncBatchNorm)", "eval")),
        (nn.RReLU(), naming("'1' (RReLU)", "eval", "LeakyReLU")),
        (nn.Dropout(0.5), naming("'1' (Dropout)", "eval", "p", 0)),
        (nn.AlphaDropout(0.5), naming("'1' (AlphaDropout)", "eval", "p", 0)),
        (
            nn.MultiheadAttention(8, 2, dropout=0.1),
            naming("'1' (MultiheadAttention)", "eval", "dropout", 0),
        ),
        (nn.LSTM(8, 8, 2, dropout=0.1), naming("'1' (LSTM)", "eval", "dropout", 0)),
        (
            spectral_norm(nn.Linear(8, 8)),
            naming("'1.parametrizations.weight.0'", "eval"),
        ),
    ],
)
def test_modules_that_are_no_function_of_each_sample_are_refused_in_training(module, message):
    """Their products would be silently wrong; in eval mode they are accepted."""
    model = nn.Sequential(nn.Linear(6, 8), module, nn.Linear(8, 2))
    _, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)

    with pytest.raises(ValueError, match=message):
        optimizer.step(batch)
    module.eval()
    if not isinstance(module, (nn.MultiheadAttention, nn.LSTM)):
        assert optimizer.step(batch).loss > 0


def test_dropout_with_rate_0_is_a_function():
    """A module that drops nothing is no reason to refuse."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.0), nn.Linear(8, 2))

    assert bdhf.BlockHessianFree(model, F.mse_loss).step(regression()[1]).loss > 0


@pytest.mark.parametrize("batches", [([1, 2],), ((1, 2), [1, 2])])
def test_a_batch_that_is_no_pair_is_refused(batches):
    """Both batches are checked, before anything is computed."""
    optimizer = bdhf.BlockHessianFree(nn.Linear(2, 1), F.mse_loss)

    with pytest.raises(TypeError, match=naming("(inputs, targets)")):
        optimizer.step(*batches)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((1, 2, 3), naming("tuple", 3, "(x, mask)")),
        ({"labels": 1}, naming("dict", "(batch, batch['labels'])")),
        (lambda: 0.0, naming("function")),
        ([[1, 2]], naming("list", "tuple(pair)")),
    ],
)
def test_what_stands_for_a_batch_is_refused_with_a_way_out(batch, message):
    """It differs for a tuple of three, a dict, a closure and a pair of a DataLoader."""
    optimizer = bdhf.BlockHessianFree(nn.Linear(2, 1), F.mse_loss)

    with pytest.raises(ModelTypeError, match=message):
        optimizer.step(batch)


@pytest.mark.parametrize("lr", [math.nan, math.inf, 0.0, -0.1])
def test_a_learning_rate_that_is_not_positive_is_an_error(lr):
    """The lr is checked where it is given."""
    with pytest.raises(ValueError, match=naming("lr", 0)):
        bdhf.BlockHessianFree(nn.Linear(2, 1), F.mse_loss, lr=lr)


@pytest.mark.parametrize("value", [-1e-3, math.nan, math.inf])
def test_a_damping_below_zero_is_an_error(value):
    """Constant damping is finite and at least 0."""
    with pytest.raises(ValueError, match=naming("Constant", 0)):
        bdhf.Constant(value)


@pytest.mark.parametrize("value", [-1e-3, math.nan, math.inf])
@pytest.mark.parametrize("key", ["damping", "lr"])
def test_a_group_that_was_set_out_of_range_is_an_error(key, value):
    """Nothing moves, and the group is named; a schedule may end at a rate of 0."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.param_groups[1][key] = value

    with pytest.raises(ValueError, match=naming(f"param_groups[1]['{key}']", 0)):
        optimizer.step(batch)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    optimizer.param_groups[1][key] = 0.0
    assert optimizer.step(batch).loss > 0


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_norm_without_running_statistics_is_refused_in_every_mode(training):
    """In eval mode it couples the samples as well, so eval mode is no way out."""
    norm = nn.BatchNorm1d(8, track_running_stats=False).train(training)
    model = nn.Sequential(nn.Linear(6, 8), norm, nn.Linear(8, 2))
    _, batch = regression()
    message = naming("'1' (BatchNorm1d)", "track_running_stats=True")

    with pytest.raises(ModelError, match=message):
        bdhf.block_curvature(model, F.mse_loss, batch)

    model[1] = nn.BatchNorm1d(8, track_running_stats=True).eval()
    assert bdhf.BlockHessianFree(model, F.mse_loss).step(batch).loss > 0


def images(norm):
    """A convolution, a norm and a linear layer, with a batch."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), norm, nn.Flatten(), nn.Linear(2 * 16, 2))
    return model, (torch.randn(5, 1, 6, 6), torch.randn(5, 2))


def test_an_instance_norm_that_moves_its_statistics_is_refused():
    """An update makes several forward passes; each would move the running mean."""
    model, batch = images(nn.InstanceNorm2d(2, track_running_stats=True))

    with pytest.raises(
        ModelError, match=naming("'1' (InstanceNorm2d)", "track_running_stats=False")
    ):
        bdhf.BlockHessianFree(model, F.mse_loss).step(batch)
    assert torch.equal(model[1].running_mean, torch.zeros(2))


@pytest.mark.parametrize(
    "norm",
    [nn.InstanceNorm2d(2), nn.InstanceNorm2d(2, track_running_stats=True).eval()],
    ids=["no statistics", "eval"],
)
def test_an_instance_norm_that_moves_nothing_is_accepted(norm):
    """Both ways out that the refusal names work."""
    model, batch = images(norm)

    assert bdhf.BlockHessianFree(model, F.mse_loss).step(batch).loss > 0


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_the_hook_of_spectral_norm_is_refused_in_training():
    """It moves its power iteration, as the parametrization does."""
    layer = torch.nn.utils.spectral_norm(nn.Linear(6, 2))

    with pytest.raises(ModelError, match=naming("root", "Linear", "eval")):
        bdhf.block_curvature(layer, F.mse_loss, regression()[1])


class Tokens(nn.Module):
    """The mean of embeddings."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens

    def forward(self, x):
        return self.tokens(x)


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_gradients_are_refused_with_a_way_out(kind):
    """Vectors of parameters are dense."""
    model = Tokens(kind(7, 2, sparse=True))

    with pytest.raises(ModelError, match=naming(f"'tokens' ({kind.__name__})", "sparse=False")):
        bdhf.BlockHessianFree(model, F.mse_loss).step((torch.tensor([[1, 2]]), torch.zeros(1, 2)))


@pytest.mark.parametrize(
    "parameters", [lambda m: m.parameters(), lambda m: list(m.parameters()), lambda m: None]
)
@pytest.mark.parametrize("build", [bdhf.BlockHessianFree, bdhf.block_curvature])
def test_parameters_in_place_of_the_model_are_refused(build, parameters):
    """Other optimizers take them; products need the forward pass."""
    model, batch = regression()
    arguments = [parameters(model), F.mse_loss, *([batch] if build is bdhf.block_curvature else [])]

    with pytest.raises(ModelTypeError, match=naming("model.parameters()")):
        build(*arguments)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("curvature", "ggn"),
        ("curvature", bdhf.GGN),
        ("partition", "per_layer"),
        ("partition", bdhf.Full),
        ("partition", bdhf.Blend("per_layer", alpha=0.5)),
        ("solver", bdhf.CG),
        ("damping", 0.1),
        ("acceptance", None),
        ("regularization", 1e-4),
        ("momentum", 0.9),
        ("momentum", bdhf.QuadraticMomentum),
    ],
    ids=str,
)
def test_a_part_that_is_a_name_a_number_or_a_class_is_refused(part, value):
    """The error names the keyword and an example."""
    model, batch = regression()

    with pytest.raises(ModelTypeError, match=naming(part, "bdhf")):
        bdhf.BlockHessianFree(model, F.mse_loss, **{part: value})
    if part in ("curvature", "partition"):
        with pytest.raises(ModelTypeError, match=naming(part, "bdhf")):
            bdhf.block_curvature(model, F.mse_loss, batch, **{part: value})


def test_the_class_of_a_loss_is_refused():
    """Its call would build a module out of outputs and targets."""
    with pytest.raises(ModelTypeError, match=naming("MSELoss()")):
        bdhf.BlockHessianFree(nn.Linear(2, 1), nn.MSELoss)


@pytest.mark.parametrize("loss_fn", ["mse", {"a": F.mse_loss}, None, torch.tensor(1.0)])
def test_a_loss_that_is_no_callable_is_refused(loss_fn):
    """When the optimizer is built."""
    with pytest.raises(ModelTypeError, match=naming("loss_fn(outputs, targets)")):
        bdhf.BlockHessianFree(nn.Linear(2, 1), loss_fn)


@pytest.mark.parametrize(
    "wrap", [lambda loss: {"loss": loss}, lambda loss: (loss, 1), lambda loss: float(loss.detach())]
)
def test_a_loss_that_returns_no_tensor_is_refused(wrap):
    """A dict of losses is none."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, lambda z, y: wrap(F.mse_loss(z, y)))

    with pytest.raises(ModelTypeError, match=naming("loss_fn(outputs, targets)", "Tensor")):
        optimizer.step(batch)


@pytest.mark.parametrize(
    "loss_fn",
    [
        lambda z, y: torch.tensor(F.mse_loss(z, y).item()),
        lambda z, y: F.mse_loss(z.detach(), y),
        lambda z, y: z.new_tensor(1.0),
    ],
)
@pytest.mark.parametrize("curvature", [bdhf.GGN(), bdhf.Hessian()])
def test_a_loss_without_a_graph_is_refused(loss_fn, curvature):
    """Torch's error names an element 0 of tensors; this one names the loss."""
    model, batch = regression()

    with pytest.raises(ModelError, match=naming("<lambda>", "detach()")):
        bdhf.block_curvature(model, loss_fn, batch, curvature=curvature)
    with pytest.raises(ModelError, match=naming("<lambda>", "detach()")):
        bdhf.BlockHessianFree(model, loss_fn, curvature=curvature).step(batch)


@pytest.mark.parametrize(
    ("loss_fn", "batch"),
    [
        (nn.MultiMarginLoss(), (torch.ones(4, 6), torch.tensor([0, 1, 1, 0]))),
        (
            lambda z, y: F.ctc_loss(
                z.log_softmax(-1)[:, None], y, torch.tensor([4]), torch.tensor([2])
            ),
            (torch.ones(4, 6), torch.ones(1, 2, dtype=torch.long)),
        ),
    ],
    ids=["multi_margin", "ctc"],
)
def test_a_loss_without_a_second_derivative_is_named_with_a_way_out(loss_fn, batch):
    """Torch has none of it, and the GGN needs one."""
    model, _ = regression()

    with pytest.raises(
        CurvatureError, match=naming("bdhf.optim.Likelihood", "EmpiricalFisher", "Fisher")
    ):
        bdhf.BlockHessianFree(model, loss_fn).step(batch)


class Modulus(nn.Module):
    """|x W| with a complex matrix."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 2, dtype=torch.cfloat))

    def forward(self, x):
        return (x.to(self.w.dtype) @ self.w).abs()


class Empty(nn.Linear):
    """A layer with a parameter of no entries."""

    def __init__(self):
        super().__init__(6, 2)
        self.nothing = nn.Parameter(torch.zeros(0, 2))


def made_in_inference_mode():
    """A model with parameters that autograd may not keep."""
    with torch.inference_mode():
        return nn.Linear(6, 2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Modulus, naming("'w'", "(Modulus)", "torch.view_as_complex")),
        (Empty, naming("'nothing'", "(Empty)", "requires_grad_(False)")),
        (
            lambda: nn.Sequential(nn.Linear(6, 2, device="meta")),
            naming("'0.weight'", "meta", "model.to_empty"),
        ),
        (made_in_inference_mode, naming("'weight'", "torch.inference_mode()")),
    ],
    ids=["complex", "empty", "meta", "inference"],
)
def test_parameters_that_no_vector_holds_are_named(build, message):
    """When the optimizer is built, with the way out."""
    with pytest.raises(ModelError, match=message):
        bdhf.BlockHessianFree(build(), F.mse_loss)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_lazy_layer_is_refused_until_it_has_a_shape():
    """One forward pass is the way out."""
    model, (_, batch) = nn.Sequential(nn.LazyLinear(2)), regression()

    with pytest.raises(ModelError, match=naming("'0.weight'", "'0' (LazyLinear)")):
        bdhf.BlockHessianFree(model, F.mse_loss)
    model(batch[0])
    assert bdhf.BlockHessianFree(model, F.mse_loss).step(batch).loss > 0


def test_an_empty_parameter_may_be_frozen():
    """The way out that the refusal names works."""
    model = Empty()
    model.nothing.requires_grad_(False)

    assert bdhf.BlockHessianFree(model, F.mse_loss).step(regression()[1]).loss > 0


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_model_is_refused():
    """Its operators cannot be followed; the module that was scripted can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch.jit itself, from 2.15 on
        scripted = torch.jit.script(nn.Linear(6, 2))

    with pytest.raises(ModelTypeError, match=naming("torch.jit", "nn.Module")):
        bdhf.BlockHessianFree(scripted, F.mse_loss)


def test_a_caller_in_inference_mode_is_refused():
    """Autograd is off there; a batch that was made there is refused outside of it too."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)

    with (
        torch.inference_mode(),
        pytest.raises(ModelError, match=naming("torch.inference_mode()", "no_grad()")),
    ):
        optimizer.step(batch)
    with torch.inference_mode():
        inside = tuple(x * 1 for x in batch)
    with pytest.raises(ModelError, match=naming("torch.inference_mode()", "clone()")):
        optimizer.step(inside)
    with torch.no_grad():
        assert optimizer.step(tuple(x.clone() for x in inside)).loss > 0


class Standing(nn.Module):
    """What a wrapper that shares a model out looks like from outside, without its processes."""

    def __init__(self, module):
        nn.Module.__init__(self)
        self.module = module

    def forward(self, x):
        return self.module(x)


class Distributed(Standing, DistributedDataParallel):
    """DistributedDataParallel, or what a trainer derives from it."""


@pytest.mark.parametrize("around", [lambda m: m, nn.Sequential], ids=["whole", "part"])
@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (Distributed, naming("(Distributed)", "model.module")),
        (DataParallel, naming("(DataParallel)", "model.module")),
    ],
    ids=["DistributedDataParallel", "DataParallel"],
)
def test_a_model_that_is_shared_out_is_refused(wrap, message, around):
    """Gradients are not reduced over ranks: they would drift apart, silently."""
    model, batch = regression()

    with pytest.raises(ModelError, match=message):
        bdhf.BlockHessianFree(around(wrap(model)), F.mse_loss)
    assert bdhf.BlockHessianFree(model, F.mse_loss).step(batch).loss > 0


@pytest.mark.parametrize("name", ["FullyShardedDataParallel", "FSDPModule"])
def test_a_sharded_model_is_refused(name):
    """FSDP is known by its classes, which fully_shard mixes into those of the model."""
    sharded = getattr(fsdp, name)
    kind = type("Sharded", (Standing, sharded), {"__new__": lambda cls, *_: object.__new__(cls)})
    model, batch = regression()

    with pytest.raises(ModelError, match=naming("(Sharded)")):
        bdhf.block_curvature(kind(model), F.mse_loss, batch)


class Doubling(nn.Module):
    """Doubles its inputs in place."""

    def forward(self, x):
        return x.mul_(2)


@pytest.mark.parametrize("first", [lambda: nn.ReLU(inplace=True), Doubling])
def test_inputs_that_are_changed_in_place_are_refused(first):
    """A second pass would read others; the same module further up is accepted."""
    model, (x, y) = nn.Sequential(first(), nn.Linear(4, 3)), (torch.randn(8, 4), torch.randn(8, 3))

    with pytest.raises(ModelError, match=naming("inplace=True")):
        bdhf.BlockHessianFree(model, F.mse_loss).step((x, y))
    behind = nn.Sequential(nn.Linear(4, 4), first(), nn.Linear(4, 3))
    assert bdhf.BlockHessianFree(behind, F.mse_loss).step((x, y)).loss > 0
